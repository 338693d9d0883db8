// Draws tokens from rows that are spread over ranks: steps 1 to 3 of kernels/sampling_shards.h on the CPU, for one row.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/sampling_rules.h"
#include "kernels/sampling_shards.h"

namespace weft::cpu {

// Holds working memory of a share's size, so keep one a thread; not thread-safe.
class ShardSampler {
 public:
  explicit ShardSampler(const Kernels& kernels) : kernels_(&kernels) {}

  // Applies penalties and biases to `logits` [share]. `raw` [share] gets them as they came, where they are still
  // wanted.
  RowSummary Summarize(absl::Span<float> logits, int32_t first_token, const SampleArgs& args, absl::Span<float> raw);

  // Fills `best` and `top`, best first.
  void Pick(absl::Span<const float> logits, absl::Span<const float> raw, int32_t first_token, const SampleArgs& args,
            const RowSummary& row, absl::Span<DrawCandidate> best, absl::Span<DrawCandidate> top);

  // candidates: of all ranks, each draw.num_candidates(). False: not drawn, the nucleus may be wider.
  bool Draw(const SampleArgs& args, const RowSummary& row, const RowDraw& draw,
            absl::Span<const DrawCandidate> candidates, SampleResult& result);

 private:
  void PickWinner(absl::Span<const float> logits, int32_t first_token, const SampleArgs& args, const RowSummary& row,
                  DrawCandidate& winner);
  void CollectBest(absl::Span<const DrawCandidate> candidates, const RowDraw& draw);
  double WeighCandidates(const SampleArgs& args, const RowSummary& row);
  std::optional<int32_t> DrawBest(const SampleArgs& args, const RowSummary& row, const RowDraw& draw);
  void FillTopLogprobs(absl::Span<const DrawCandidate> candidates, const RowDraw& draw, double log_sum,
                       SampleResult& result);

  const Kernels* kernels_;
  std::vector<float> weights_;
  std::vector<Candidate> candidates_;
  Candidate best_unseen_;  // no token that some rank still has is better
};

}  // namespace weft::cpu
