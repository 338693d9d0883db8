#include "kernels/sampling_shards.h"

#include <algorithm>
#include <cmath>

namespace weft {
namespace {

constexpr int kFirstNucleus = 256;  // tokens a rank offers before anybody knows how wide it is
constexpr int kNucleusGrowth = 16;

// A share without a finite logit adds nothing.
double Rescaled(double sum, float max, float whole_max, float temperature) {
  if (!std::isfinite(max)) return 0;
  return sum * std::exp((static_cast<double>(max) - whole_max) / temperature);
}

int NumBestWanted(const SampleArgs& args, int attempt, int most_tokens) {
  if (args.known.has_value()) return 0;
  if (args.temperature == 0) return 1;
  if (args.top_k > 0) return std::min(args.top_k, most_tokens);
  if (args.top_p >= 1) return 1;
  int64_t wanted = kFirstNucleus;
  for (int i = 0; i < attempt && wanted < most_tokens; ++i) wanted *= kNucleusGrowth;
  return static_cast<int>(std::min<int64_t>(wanted, most_tokens));
}

}  // namespace

RowDraw DrawOf(const SampleArgs& args, int attempt, int most_tokens) {
  return {NumBestWanted(args, attempt, most_tokens), std::clamp(args.num_logprobs, 0, most_tokens)};
}

RowSummary MergeSummaries(absl::Span<const RowSummary> shares, const SampleArgs& args) {
  RowSummary whole = shares[0];
  whole.most_tokens = whole.num_tokens;
  for (const RowSummary& share : shares.subspan(1)) {
    whole.finite &= share.finite;
    whole.max = std::max(whole.max, share.max);
    whole.raw_max = std::max(whole.raw_max, share.raw_max);
    whole.known_raw = std::max(whole.known_raw, share.known_raw);
    whole.num_tokens += share.num_tokens;
    whole.most_tokens = std::max(whole.most_tokens, share.num_tokens);
  }
  whole.sum = whole.raw_sum = 0;
  const float temperature = args.temperature > 0 ? args.temperature : 1;
  for (const RowSummary& share : shares) {
    whole.sum += Rescaled(share.sum, share.max, whole.max, temperature);
    whole.raw_sum += Rescaled(share.raw_sum, share.raw_max, whole.raw_max, 1);
  }
  // Banned, or given up by the model: nothing is left to draw.
  if (!std::isfinite(whole.max) || !std::isfinite(whole.raw_max)) whole.finite = 0;
  return whole;
}

}  // namespace weft
