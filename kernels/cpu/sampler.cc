#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/sampling_rules.h"

namespace weft::cpu {

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

int32_t RowSampler::Draw(absl::Span<const float> logits, const SampleArgs& args, float max) {
  const auto vocab = static_cast<int64_t>(logits.size());
  bool cut = args.top_k > 0 && args.top_k < vocab;
  double sum;
  if (cut) {
    SelectBest(logits, 0, args.top_k, candidates_);
    sum = WeighCandidates(max, args.temperature);
  } else {
    sum = kernels_->exp_weights(logits.data(), vocab, max, args.temperature, weights_.data());
  }
  if (args.top_p < 1) {
    const double top_p = std::max(0.0, static_cast<double>(args.top_p));
    // Tokens lighter than this can't weigh 1 - top_p together, so the others hold the nucleus; halved for rounding.
    if (!cut) SelectHeavy(logits, (1 - top_p) * sum / static_cast<double>(vocab) / 2);
    KeepNucleus(candidates_, top_p * sum);
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
  SelectBest(logits, 0, std::min<int64_t>(count, vocab), candidates_);
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
    ApplyPenalties(args, 0, logits);
    ApplyBiases(args, 0, logits);
    max = kernels_->max(logits.data(), vocab);
    result.finite = std::isfinite(max);
    if (!result.finite) return;
  }
  result.token = args.temperature == 0 ? ArgMax(logits, max) : Draw(logits, args, max);
  if (args.num_logprobs >= 0) result.logprob = static_cast<float>(raw_[result.token] - log_sum);
}

}  // namespace weft::cpu
