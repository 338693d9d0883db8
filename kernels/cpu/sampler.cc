#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/philox.h"

namespace weft::cpu {
namespace {

// The lowest id among the largest logits.
int32_t ArgMax(absl::Span<const float> logits, float max) {
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), max) - logits.begin());
}

bool InRange(int32_t token, absl::Span<const float> logits) {
  return token >= 0 && static_cast<size_t>(token) < logits.size();
}

void ApplyPenalties(const SampleArgs& args, absl::Span<float> logits) {
  for (const TokenCount& count : args.counts) {
    if (!InRange(count.token, logits)) continue;
    float& logit = logits[static_cast<size_t>(count.token)];
    if (count.in_prompt + count.in_output > 0) {
      logit = logit > 0 ? logit / args.repetition_penalty : logit * args.repetition_penalty;
    }
    if (count.in_output > 0) {
      logit -= args.presence_penalty + args.frequency_penalty * static_cast<float>(count.in_output);
    }
  }
}

void ApplyBiases(const SampleArgs& args, absl::Span<float> logits) {
  for (const LogitBias& bias : args.biases) {
    if (InRange(bias.token, logits)) logits[static_cast<size_t>(bias.token)] += bias.bias;
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

 private:
  const SampleArgs& args_;
  uint32_t group_ = std::numeric_limits<uint32_t>::max();
  Philox4 words_{};
  double best_time_ = std::numeric_limits<double>::infinity();
  int32_t winner_ = -1;
};

}  // namespace

// The `count` best tokens of all become the candidates, in no order.
void RowSampler::SelectBest(absl::Span<const float> logits, int64_t count) {
  candidates_.clear();
  const auto most = static_cast<size_t>(2 * count + 64);
  float worst_kept = -std::numeric_limits<float>::infinity();
  const auto keep_best = [&] {
    std::nth_element(candidates_.begin(), candidates_.begin() + (count - 1), candidates_.end(), Better);
    candidates_.resize(static_cast<size_t>(count));
    worst_kept = candidates_.back().logit;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    // A later token never displaces an equal one: ties go to the lowest id.
    if (logits[i] <= worst_kept) continue;
    candidates_.push_back({logits[i], 0, static_cast<int32_t>(i)});
    if (candidates_.size() == most) keep_best();
  }
  if (static_cast<int64_t>(candidates_.size()) > count) keep_best();
}

// Of all tokens, whose weights are known, those of at least `least_weight` become the candidates.
void RowSampler::SelectHeavy(absl::Span<const float> logits, double least_weight) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights_[i] >= least_weight) candidates_.push_back({logits[i], weights_[i], static_cast<int32_t>(i)});
  }
}

// Sets the candidates' weights; returns their sum.
double RowSampler::WeighCandidates(float max, float temperature) {
  const auto count = static_cast<int64_t>(candidates_.size());
  for (int64_t i = 0; i < count; ++i) weights_[i] = candidates_[i].logit;
  const double sum = kernels_->exp_weights(weights_.data(), count, max, temperature, weights_.data());
  for (int64_t i = 0; i < count; ++i) candidates_[i].weight = weights_[i];
  return sum;
}

// Keeps the fewest best candidates whose weights reach `mass`, at least one. Sorts no more of them than it must.
void RowSampler::KeepNucleus(double mass) {
  double reached = 0;
  size_t sorted = 0;
  for (size_t step = 64; sorted < candidates_.size(); step *= 4) {
    const size_t end = std::min(candidates_.size(), sorted + step);
    const auto from = candidates_.begin() + static_cast<ptrdiff_t>(sorted);
    const auto to = candidates_.begin() + static_cast<ptrdiff_t>(end);
    if (to != candidates_.end()) std::nth_element(from, to, candidates_.end(), Better);
    std::sort(from, to, Better);
    for (; sorted < end; ++sorted) {
      reached += candidates_[sorted].weight;
      if (reached >= mass) return candidates_.resize(sorted + 1);
    }
  }
}

int32_t RowSampler::Draw(absl::Span<const float> logits, const SampleArgs& args, float max) {
  const auto vocab = static_cast<int64_t>(logits.size());
  bool cut = args.top_k > 0 && args.top_k < vocab;
  double sum;
  if (cut) {
    SelectBest(logits, args.top_k);
    sum = WeighCandidates(max, args.temperature);
  } else {
    sum = kernels_->exp_weights(logits.data(), vocab, max, args.temperature, weights_.data());
  }
  if (args.top_p < 1) {
    const double top_p = std::max(0.0, static_cast<double>(args.top_p));
    // Tokens lighter than this can't weigh 1 - top_p together, so the others hold the nucleus; halved for rounding.
    if (!cut) SelectHeavy(logits, (1 - top_p) * sum / static_cast<double>(vocab) / 2);
    KeepNucleus(top_p * sum);
    cut = true;
  }
  if (args.min_p > 0) {
    const float least = std::min(args.min_p, 1.0f);
    if (!cut) SelectHeavy(logits, least);
    const auto light = [&](const Candidate& candidate) { return candidate.weight < least; };
    candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), light), candidates_.end());
    cut = true;
  }
  Race race(args);
  if (cut) {
    for (const Candidate& candidate : candidates_) race.Run(candidate.token, candidate.weight);
  } else {
    for (int64_t i = 0; i < vocab; ++i) race.Run(static_cast<int32_t>(i), weights_[i]);
  }
  return race.winner();
}

// logits: as they came. Leaves result.logprob, which depends on the draw, to the caller; returns the log of the sum of
// exp(logit).
double RowSampler::FillTopLogprobs(absl::Span<const float> logits, int count, float max, SampleResult& result) {
  const auto vocab = static_cast<int64_t>(logits.size());
  const double log_sum = max + std::log(kernels_->exp_weights(logits.data(), vocab, max, 1.0f, weights_.data()));
  if (count == 0) return log_sum;
  SelectBest(logits, std::min<int64_t>(count, vocab));
  std::sort(candidates_.begin(), candidates_.end(), Better);
  for (const Candidate& candidate : candidates_) {
    result.top_logprobs.push_back({candidate.token, static_cast<float>(candidate.logit - log_sum)});
  }
  return log_sum;
}

void RowSampler::Sample(absl::Span<float> logits, const SampleArgs& args, SampleResult& result) {
  result = SampleResult{};
  const auto vocab = static_cast<int64_t>(logits.size());
  float max = kernels_->max(logits.data(), vocab);
  result.finite = std::isfinite(max);
  if (!result.finite) return;

  weights_.resize(logits.size());
  double log_sum = 0;
  if (args.num_logprobs >= 0) {
    raw_.assign(logits.begin(), logits.end());
    log_sum = FillTopLogprobs(raw_, args.num_logprobs, max, result);
  }
  if (args.known.has_value()) {
    result.token = *args.known;
    if (args.num_logprobs >= 0) result.logprob = static_cast<float>(logits[*args.known] - log_sum);
    return;
  }
  if (!args.counts.empty() || !args.biases.empty()) {
    ApplyPenalties(args, logits);
    ApplyBiases(args, logits);
    max = kernels_->max(logits.data(), vocab);
    result.finite = std::isfinite(max);
    if (!result.finite) return;
  }
  result.token = args.temperature == 0 ? ArgMax(logits, max) : Draw(logits, args, max);
  if (args.num_logprobs >= 0) result.logprob = static_cast<float>(raw_[result.token] - log_sum);
}

}  // namespace weft::cpu
