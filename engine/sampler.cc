#include "engine/sampler.h"

#include <limits>

namespace weft {

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

std::vector<SampledToken> Sampler::Sample(const Batch& batch, Tensor logits) {
  std::vector<SampleArgs> args;
  std::vector<Slot*> slots;
  for (const SamplingRow& sampling : batch.sampling) {
    slots.push_back(&slots_[static_cast<size_t>(batch.slots[static_cast<size_t>(sampling.row)])]);
    args.push_back(Args(*slots.back(), sampling));
  }
  std::vector<SampleResult> results(args.size());
  tensor_parallel_.Sample(logits, vocab_size_, args, absl::MakeSpan(results));

  std::vector<SampledToken> tokens;
  for (size_t i = 0; i < results.size(); ++i) {
    const SampleResult& result = results[i];
    const bool in_prompt = args[i].known.has_value();
    if (!in_prompt && slots[i]->params.HasPenalties()) Count(*slots[i], result.token, false);
    tokens.push_back({result.token, result.logprob, {}, in_prompt, result.finite});
    for (const TokenLogprob& top : result.top_logprobs) tokens.back().top_logprobs.push_back({top.token, top.logprob});
  }
  return tokens;
}

}  // namespace weft
