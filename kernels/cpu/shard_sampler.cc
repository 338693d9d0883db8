#include "kernels/cpu/shard_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace weft::cpu {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// NaN and +infinity spoil a row; -infinity is a token that can't be drawn.
bool IsSpoilt(float max) { return std::isnan(max) || max == std::numeric_limits<float>::infinity(); }

bool IsCut(const SampleArgs& args) { return args.temperature == 0 || args.top_k > 0 || args.top_p < 1; }

// The candidate that is `drawn`, or, where nothing was cut, the soonest of the ranks' winners.
DrawCandidate FindWinner(absl::Span<const DrawCandidate> candidates, const RowDraw& draw,
                         std::optional<int32_t> drawn) {
  DrawCandidate winner;
  const auto stride = static_cast<size_t>(draw.num_candidates());
  for (; !candidates.empty(); candidates.remove_prefix(stride)) {
    for (const DrawCandidate& c : candidates.first(static_cast<size_t>(draw.num_best))) {
      if (c.token < 0) continue;
      const bool is_sooner =
          winner.token < 0 || c.time < winner.time || (c.time == winner.time && c.token < winner.token);
      if (drawn.has_value() ? c.token == *drawn : is_sooner) winner = c;
    }
  }
  return winner;
}

}  // namespace

RowSummary ShardSampler::Summarize(absl::Span<float> logits, int32_t first_token, const SampleArgs& args,
                                   absl::Span<float> raw) {
  const auto count = static_cast<int64_t>(logits.size());
  weights_.resize(logits.size());
  RowSummary row{.num_tokens = static_cast<int32_t>(count)};
  row.max = row.raw_max = kernels_->max(logits.data(), count);
  row.known_raw = kNothing;
  row.finite = !IsSpoilt(row.raw_max);
  if (row.finite == 0) return row;
  if (args.num_logprobs >= 0) {
    std::copy(logits.begin(), logits.end(), raw.begin());
    if (row.raw_max > kNothing) {
      row.raw_sum = kernels_->exp_weights(logits.data(), count, row.raw_max, 1.0f, weights_.data());
    }
    const float* const known = args.known.has_value() ? LogitOf(*args.known, first_token, logits) : nullptr;
    if (known != nullptr) row.known_raw = *known;
  }
  if (args.known.has_value()) return row;
  if (!args.counts.empty() || !args.biases.empty()) {
    ApplyPenalties(args, first_token, logits);
    ApplyBiases(args, first_token, logits);
    row.max = kernels_->max(logits.data(), count);
    row.finite = !IsSpoilt(row.max);
  }
  if (row.finite != 0 && row.max > kNothing && args.temperature > 0) {
    row.sum = kernels_->exp_weights(logits.data(), count, row.max, args.temperature, weights_.data());
  }
  return row;
}

// Without a cut the winner among all is the winner of some rank.
void ShardSampler::PickWinner(absl::Span<const float> logits, int32_t first_token, const SampleArgs& args,
                              const RowSummary& row, DrawCandidate& winner) {
  weights_.resize(logits.size());
  kernels_->exp_weights(logits.data(), static_cast<int64_t>(logits.size()), row.max, args.temperature, weights_.data());
  const float least = std::min(args.min_p, 1.0f);
  Race race(args);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (weights_[i] >= least) race.Run(first_token + static_cast<int32_t>(i), weights_[i]);
  }
  winner.token = race.winner();
  winner.time = race.best_time();
}

void ShardSampler::Pick(absl::Span<const float> logits, absl::Span<const float> raw, int32_t first_token,
                        const SampleArgs& args, const RowSummary& row, absl::Span<DrawCandidate> best,
                        absl::Span<DrawCandidate> top) {
  std::fill(best.begin(), best.end(), DrawCandidate{});
  std::fill(top.begin(), top.end(), DrawCandidate{});
  if (row.finite == 0) return;
  const auto raw_of = [&](int32_t token) { return raw.empty() ? 0.0f : raw[static_cast<size_t>(token - first_token)]; };
  if (!best.empty() && !IsCut(args)) {
    PickWinner(logits, first_token, args, row, best[0]);
    if (best[0].token >= 0) best[0].raw = raw_of(best[0].token);
  } else if (!best.empty()) {
    SelectBest(logits, first_token, static_cast<int64_t>(best.size()), candidates_);
    std::sort(candidates_.begin(), candidates_.end(), Better);
    for (size_t i = 0; i < candidates_.size(); ++i) {
      best[i] = {.logit = candidates_[i].logit, .raw = raw_of(candidates_[i].token), .token = candidates_[i].token};
    }
  }
  if (top.empty()) return;
  SelectBest(raw, first_token, static_cast<int64_t>(top.size()), candidates_);
  std::sort(candidates_.begin(), candidates_.end(), Better);
  for (size_t i = 0; i < candidates_.size(); ++i) {
    top[i] = {.raw = candidates_[i].logit, .token = candidates_[i].token};
  }
}

// The candidates for the draw, and what the ranks may still hold back.
void ShardSampler::CollectBest(absl::Span<const DrawCandidate> candidates, const RowDraw& draw) {
  candidates_.clear();
  best_unseen_ = {kNothing, 0, std::numeric_limits<int32_t>::max()};
  const auto stride = static_cast<size_t>(draw.num_candidates());
  for (; !candidates.empty(); candidates.remove_prefix(stride)) {
    const auto best = candidates.first(static_cast<size_t>(draw.num_best));
    for (const DrawCandidate& c : best) {
      if (c.token >= 0) candidates_.push_back({c.logit, 0, c.token});
    }
    const Candidate last{best.back().logit, 0, best.back().token};
    if (last.token >= 0 && Better(last, best_unseen_)) best_unseen_ = last;
  }
}

// Returns the sum of what may be drawn before top_p.
double ShardSampler::WeighCandidates(const SampleArgs& args, const RowSummary& row) {
  const bool has_top_k = args.top_k > 0 && args.top_k < row.num_tokens;
  if (has_top_k && static_cast<size_t>(args.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + (args.top_k - 1), candidates_.end(), Better);
    candidates_.resize(static_cast<size_t>(args.top_k));
  }
  const auto count = static_cast<int64_t>(candidates_.size());
  weights_.resize(candidates_.size());
  for (size_t i = 0; i < candidates_.size(); ++i) weights_[i] = candidates_[i].logit;
  const double sum = kernels_->exp_weights(weights_.data(), count, row.max, args.temperature, weights_.data());
  for (size_t i = 0; i < candidates_.size(); ++i) candidates_[i].weight = weights_[i];
  return has_top_k ? sum : row.sum;
}

// None: a rank may hold back a token that belongs to the nucleus.
std::optional<int32_t> ShardSampler::DrawBest(const SampleArgs& args, const RowSummary& row, const RowDraw& draw) {
  if (args.temperature == 0) return std::min_element(candidates_.begin(), candidates_.end(), Better)->token;
  const double sum = WeighCandidates(args, row);
  if (args.top_p < 1) {
    const bool reached = KeepNucleus(candidates_, std::max(0.0, static_cast<double>(args.top_p)) * sum);
    const bool all_are_here = args.top_k > 0 || draw.num_best >= row.most_tokens;
    if (!all_are_here && (!reached || Better(best_unseen_, candidates_.back()))) return std::nullopt;
  }
  const float least = std::min(args.min_p, 1.0f);
  Race race(args);
  for (const Candidate& c : candidates_) {
    if (c.weight >= least) race.Run(c.token, c.weight);
  }
  return race.winner();
}

void ShardSampler::FillTopLogprobs(absl::Span<const DrawCandidate> candidates, const RowDraw& draw, double log_sum,
                                   SampleResult& result) {
  candidates_.clear();
  const auto stride = static_cast<size_t>(draw.num_candidates());
  for (; !candidates.empty(); candidates.remove_prefix(stride)) {
    for (const DrawCandidate& c :
         candidates.subspan(static_cast<size_t>(draw.num_best), stride - static_cast<size_t>(draw.num_best))) {
      if (c.token >= 0) candidates_.push_back({c.raw, 0, c.token});
    }
  }
  std::sort(candidates_.begin(), candidates_.end(), Better);
  candidates_.resize(std::min(candidates_.size(), static_cast<size_t>(draw.num_top)));
  for (const Candidate& c : candidates_) {
    result.top_logprobs.push_back({c.token, static_cast<float>(c.logit - log_sum)});
  }
}

bool ShardSampler::Draw(const SampleArgs& args, const RowSummary& row, const RowDraw& draw,
                        absl::Span<const DrawCandidate> candidates, SampleResult& result) {
  result = SampleResult{};
  result.finite = row.finite != 0;
  if (!result.finite) return true;
  float raw = row.known_raw;
  if (args.known.has_value()) {
    result.token = *args.known;
  } else {
    std::optional<int32_t> cut;  // the draw, where it isn't the soonest
    if (IsCut(args)) {
      CollectBest(candidates, draw);
      cut = DrawBest(args, row, draw);
      if (!cut.has_value()) return false;
    }
    const DrawCandidate winner = FindWinner(candidates, draw, cut);
    result.token = winner.token;
    raw = winner.raw;
  }
  if (args.num_logprobs < 0) return true;
  const double log_sum = row.raw_max + std::log(row.raw_sum);
  result.logprob = static_cast<float>(raw - log_sum);
  FillTopLogprobs(candidates, draw, log_sum, result);
  return true;
}

}  // namespace weft::cpu
