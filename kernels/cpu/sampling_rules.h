// The parts of the rules of kernels/sampling.h, on the CPU, for whole rows and for rows that are spread over ranks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "kernels/philox.h"
#include "kernels/sampling.h"

namespace weft::cpu {

// The lowest id among the largest logits.
inline int32_t ArgMax(absl::Span<const float> logits, float max) {
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

// Where a token's logit is in a row that begins with `first_token`; null: elsewhere.
inline float* LogitOf(int32_t token, int32_t first_token, absl::Span<float> logits) {
  const int64_t i = int64_t{token} - first_token;
  return i >= 0 && i < static_cast<int64_t>(logits.size()) ? &logits[static_cast<size_t>(i)] : nullptr;
}

inline void ApplyPenalties(const SampleArgs& args, int32_t first_token, absl::Span<float> logits) {
  for (const TokenCount& count : args.counts) {
    float* const place = LogitOf(count.token, first_token, logits);
    if (place == nullptr) continue;
    float& logit = *place;
    if (count.in_prompt + count.in_output > 0) {
      logit = logit > 0 ? logit / args.repetition_penalty : logit * args.repetition_penalty;
    }
    if (count.in_output > 0) {
      logit -= args.presence_penalty + args.frequency_penalty * static_cast<float>(count.in_output);
    }
  }
}

inline void ApplyBiases(const SampleArgs& args, int32_t first_token, absl::Span<float> logits) {
  for (const LogitBias& bias : args.biases) {
    float* const logit = LogitOf(bias.token, first_token, logits);
    if (logit != nullptr) *logit += bias.bias;
  }
}

// One exponential race. Token i finishes at E_i / w_i, with E_i exponential: it wins with probability w_i / sum(w), and
// its time depends on no other token, so neither on the order nor on the choice of those that run. This is Gumbel-max
// (argmax of log w_i - log E_i) without the logarithms.
class Race {
 public:
  explicit Race(const SampleArgs& args) : args_(args) {}

  void Run(int32_t token, double weight) {
    const auto group = static_cast<uint32_t>(token) / 4;
    if (group != group_) {
      group_ = group;
      words_ = SamplingWords(args_.seed, args_.sequence, args_.position, group);
    }
    const double u = UnitInterval(words_.word[token % 4]);
    if (u > best_time_ * weight) return;  // E = -log(1 - u) >= u, so this one is too late
    const double time = -std::log1p(-u) / weight;
    if (time < best_time_ || (time == best_time_ && token < winner_)) {
      best_time_ = time;
      winner_ = token;
    }
  }

  int32_t winner() const { return winner_; }
  double best_time() const { return best_time_; }

 private:
  const SampleArgs& args_;
  uint32_t group_ = std::numeric_limits<uint32_t>::max();
  Philox4 words_{};
  double best_time_ = std::numeric_limits<double>::infinity();
  int32_t winner_ = -1;
};

// A token that may be drawn.
struct Candidate {
  float logit;
  float weight;  // exp((logit - max) / temperature), so 1 for the best token
  int32_t token;
};

inline bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The `count` best tokens of a row that begins with `first_token` become the candidates, in no order.
inline void SelectBest(absl::Span<const float> logits, int32_t first_token, int64_t count,
                       std::vector<Candidate>& candidates) {
  candidates.clear();
  if (count == 0) return;
  const auto most = static_cast<size_t>(2 * count + 64);
  float worst_kept = -std::numeric_limits<float>::infinity();
  const auto keep_best = [&] {
    std::nth_element(candidates.begin(), candidates.begin() + (count - 1), candidates.end(), Better);
    candidates.resize(static_cast<size_t>(count));
    worst_kept = candidates.back().logit;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    // A later token never displaces an equal one: ties go to the lowest id.
    if (logits[i] <= worst_kept) continue;
    candidates.push_back({logits[i], 0, first_token + static_cast<int32_t>(i)});
    if (candidates.size() == most) keep_best();
  }
  if (static_cast<int64_t>(candidates.size()) > count) keep_best();
}

// Keeps the fewest best candidates whose weights reach `mass`, at least one, best first; sorts no more of them than it
// must. False: all together don't reach it; all are kept.
inline bool KeepNucleus(std::vector<Candidate>& candidates, double mass) {
  double reached = 0;
  size_t sorted = 0;
  for (size_t step = 64; sorted < candidates.size(); step *= 4) {
    const size_t end = std::min(candidates.size(), sorted + step);
    const auto from = candidates.begin() + static_cast<ptrdiff_t>(sorted);
    const auto to = candidates.begin() + static_cast<ptrdiff_t>(end);
    if (to != candidates.end()) std::nth_element(from, to, candidates.end(), Better);
    std::sort(from, to, Better);
    for (; sorted < end; ++sorted) {
      reached += candidates[sorted].weight;
      if (reached < mass) continue;
      candidates.resize(sorted + 1);
      return true;
    }
  }
  return false;
}

}  // namespace weft::cpu
