#include "engine/sampler.h"

#include <limits>

namespace weft {

void Sampler::WarmUp(Tensor logits, int64_t max_model_len) {
  constexpr int kManyLogprobs = 20;  // more than servers of this kind give
  std::vector<TokenCount> counts;
  for (int64_t i = 0; i < max_model_len; ++i) counts.push_back({static_cast<int32_t>(i % vocab_size_), 1, 0});
  const SampleArgs demanding{
      .top_p = 0.9f, .repetition_penalty = 1.1f, .num_logprobs = kManyLogprobs, .counts = counts};
  const std::vector<SampleArgs> args(static_cast<size_t>(logits.rows), demanding);
  std::vector<SampleResult> results(args.size());
  tensor_parallel_.Sample(logits, vocab_size_, args, absl::MakeSpan(results));
}

void Sampler::BeginStep(const Batch& batch) {
  for (const SlotStart& start : batch.slot_starts) Start(start, slots_[static_cast<size_t>(start.slot)]);
}

void Sampler::Start(const SlotStart& start, Slot& slot) {
  slot = Slot();
  slot.params = start.sampling;
  slot.num_prompt_tokens = start.num_prompt_tokens;
  for (size_t i = 0; i < start.tokens.size(); ++i) {
    Count(slot, start.tokens[i], i < static_cast<size_t>(start.num_prompt_tokens));
  }
  for (const auto& [token, bias] : start.sampling.logit_bias) slot.biases.push_back({token, bias});
  slot.num_lasting_biases = slot.biases.size();
  for (const int32_t token : start.sampling.banned_before_min) {
    slot.biases.push_back({token, -std::numeric_limits<float>::infinity()});
  }
}

void Sampler::Count(Slot& slot, int32_t token, bool in_prompt) {
  const auto [entry, is_new] = slot.count_of.try_emplace(token, slot.counts.size());
  if (is_new) slot.counts.push_back({token, 0, 0});
  TokenCount& count = slot.counts[entry->second];
  ++(in_prompt ? count.in_prompt : count.in_output);
}

SampleArgs Sampler::Args(const Slot& slot, const SamplingRow& row) {
  const SamplingParams& params = slot.params;
  const bool before_min = row.position - slot.num_prompt_tokens < params.min_tokens;
  const size_t num_biases = before_min ? slot.biases.size() : slot.num_lasting_biases;
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .repetition_penalty = params.repetition_penalty,
          .presence_penalty = params.presence_penalty,
          .frequency_penalty = params.frequency_penalty,
          .seed = params.seed,
          .sequence = params.sequence,
          .position = row.position,
          .num_logprobs = params.num_logprobs,
          .known = row.known,
          .counts = slot.counts,
          .biases = absl::MakeConstSpan(slot.biases).first(num_biases)};
}

std::unique_ptr<Sampler::Draws> Sampler::Draw(const Batch& batch, Tensor logits, int32_t* last_drawn) {
  auto draws = std::make_unique<Draws>();
  std::vector<SampleArgs> args;
  for (const SamplingRow& sampling : batch.sampling) {
    const auto slot = static_cast<size_t>(batch.slots[static_cast<size_t>(sampling.row)]);
    draws->slots_.push_back(&slots_[slot]);
    draws->in_prompt_.push_back(sampling.known.has_value());
    args.push_back(Args(slots_[slot], sampling));
    if (!sampling.known.has_value()) args.back().keep = last_drawn + slot;
  }
  draws->results_.resize(args.size());
  tensor_parallel_.Sample(logits, vocab_size_, args, absl::MakeSpan(draws->results_));
  return draws;
}

std::vector<SampledToken> Sampler::Take(const Draws& draws) {
  std::vector<SampledToken> tokens;
  for (size_t i = 0; i < draws.results_.size(); ++i) {
    const SampleResult& result = draws.results_[i];
    const bool in_prompt = draws.in_prompt_[i];
    if (!in_prompt && draws.slots_[i]->params.HasPenalties()) Count(*draws.slots_[i], result.token, false);
    tokens.push_back({result.token, result.logprob, {}, in_prompt, result.finite});
    for (const TokenLogprob& top : result.top_logprobs) tokens.back().top_logprobs.push_back({top.token, top.logprob});
  }
  return tokens;
}

}  // namespace weft
