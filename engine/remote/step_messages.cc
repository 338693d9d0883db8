#include "engine/remote/step_messages.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr int kMaxTopLogprobs = 1024;

template <typename Repeated>
void Write(const std::vector<int32_t>& values, Repeated& field) {
  field.Add(values.begin(), values.end());
}

template <typename Repeated>
std::vector<int32_t> Read(const Repeated& field) {
  return std::vector<int32_t>(field.begin(), field.end());
}

void WriteSampling(const SamplingParams& sampling, v1::SamplingParams& message) {
  message.set_temperature(sampling.temperature);
  message.set_top_k(sampling.top_k);
  message.set_top_p(sampling.top_p);
  message.set_min_p(sampling.min_p);
  message.set_repetition_penalty(sampling.repetition_penalty);
  message.set_presence_penalty(sampling.presence_penalty);
  message.set_frequency_penalty(sampling.frequency_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) {
    message.add_bias_tokens(token);
    message.add_bias_values(bias);
  }
  message.set_seed(sampling.seed);
  message.set_sequence(sampling.sequence);
  message.set_num_logprobs(sampling.num_logprobs);
  message.set_score_prompt(sampling.score_prompt);
  message.set_min_tokens(sampling.min_tokens);
  Write(sampling.banned_before_min, *message.mutable_banned_before_min());
}

SamplingParams ReadSampling(const v1::SamplingParams& message) {
  SamplingParams sampling{.temperature = message.temperature(),
                          .top_k = message.top_k(),
                          .top_p = message.top_p(),
                          .min_p = message.min_p(),
                          .repetition_penalty = message.repetition_penalty(),
                          .presence_penalty = message.presence_penalty(),
                          .frequency_penalty = message.frequency_penalty(),
                          .logit_bias = {},
                          .seed = message.seed(),
                          .sequence = message.sequence(),
                          .num_logprobs = message.num_logprobs(),
                          .score_prompt = message.score_prompt(),
                          .min_tokens = message.min_tokens(),
                          .banned_before_min = Read(message.banned_before_min())};
  for (int i = 0; i < message.bias_tokens_size(); ++i) {
    sampling.logit_bias.emplace_back(message.bias_tokens(i), message.bias_values(i));
  }
  return sampling;
}

bool AreIn(const std::vector<int32_t>& values, int64_t least, int64_t end) {
  return std::all_of(values.begin(), values.end(), [=](int32_t value) { return value >= least && value < end; });
}

absl::Status Refuse(const v1::Step& message, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("step ", message.step(), ": ", what));
}

// Ranges that requests keep to are the server's to check; these keep a worker's arithmetic sound.
bool IsPlausible(const v1::SamplingParams& sampling) {
  for (const float value : {sampling.temperature(), sampling.top_p(), sampling.min_p(), sampling.repetition_penalty(),
                            sampling.presence_penalty(), sampling.frequency_penalty()}) {
    if (!std::isfinite(value)) return false;
  }
  const auto& biases = sampling.bias_values();
  return sampling.temperature() >= 0 && sampling.repetition_penalty() > 0 && sampling.top_k() >= 0 &&
         sampling.num_logprobs() >= -1 && sampling.num_logprobs() <= kMaxTopLogprobs && sampling.min_tokens() >= 0 &&
         std::none_of(biases.begin(), biases.end(), [](float bias) { return std::isnan(bias); });
}

bool RowsMatch(const Batch& batch) {
  const std::vector<int32_t>& begin = batch.row_begin;
  return begin.size() == batch.slots.size() + 1 && begin.front() == 0 && begin.back() == batch.num_tokens() &&
         std::is_sorted(begin.begin(), begin.end());
}

absl::Status CheckShape(const v1::Step& message, const Batch& batch, const EngineLimits& limits) {
  if (batch.num_tokens() > limits.max_num_batched_tokens) return Refuse(message, "too many tokens");
  if (batch.num_rows() > limits.max_num_seqs) return Refuse(message, "too many rows");
  if (batch.positions.size() != batch.token_ids.size() || !RowsMatch(batch)) return Refuse(message, "ragged arrays");
  if (!AreIn(batch.token_ids, kLastSampled, limits.vocab_size)) return Refuse(message, "a token beyond the vocabulary");
  if (!AreIn(batch.positions, 0, limits.max_model_len)) return Refuse(message, "a position beyond the context");
  if (!AreIn(batch.slots, 0, limits.max_num_seqs)) return Refuse(message, "a slot that there isn't");
  return absl::OkStatus();
}

absl::Status CheckSlots(const v1::Step& message, const EngineLimits& limits) {
  if (message.slot_starts_size() > limits.max_num_seqs) return Refuse(message, "too many slots start");
  const int64_t num_blocks = (limits.max_model_len + limits.block_size - 1) / limits.block_size;
  for (const v1::SlotStart& start : message.slot_starts()) {
    if (start.slot() < 0 || start.slot() >= limits.max_num_seqs) return Refuse(message, "a slot that there isn't");
    if (start.tokens_size() > limits.max_model_len) return Refuse(message, "too many tokens known");
    if (start.num_prompt_tokens() < 0 || start.num_prompt_tokens() > limits.max_model_len) {
      return Refuse(message, "a prompt that can't be");
    }
    if (!IsPlausible(start.sampling())) return Refuse(message, "sampling parameters that no request has");
    const auto in_vocabulary = [&](int32_t token) { return token >= 0 && token < limits.vocab_size; };
    const v1::SamplingParams& sampling = start.sampling();
    for (const auto* tokens : {&start.tokens(), &sampling.bias_tokens(), &sampling.banned_before_min()}) {
      if (!std::all_of(tokens->begin(), tokens->end(), in_vocabulary)) {
        return Refuse(message, "a token beyond the vocabulary");
      }
    }
    if (sampling.bias_tokens_size() != sampling.bias_values_size()) return Refuse(message, "ragged biases");
  }
  if (message.block_updates_size() % 3 != 0) return Refuse(message, "ragged block updates");
  for (int i = 0; i < message.block_updates_size(); i += 3) {
    const int32_t slot = message.block_updates(i), index = message.block_updates(i + 1);
    const int32_t block = message.block_updates(i + 2);
    if (slot < 0 || slot >= limits.max_num_seqs || index < 0 || index >= num_blocks || block < 0 ||
        block >= limits.num_blocks) {
      return Refuse(message, "a block that there isn't");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const v1::Step& message, const Batch& batch, const EngineLimits& limits) {
  if (message.sampling_size() > limits.max_num_logits()) return Refuse(message, "too many logits");
  for (const v1::SamplingRow& row : message.sampling()) {
    if (row.row() < 0 || row.row() >= batch.num_rows() || row.position() < 1 || row.position() > limits.max_model_len) {
      return Refuse(message, "a row to draw for that there isn't");
    }
    if (row.has_known() && (row.known() < 0 || row.known() >= limits.vocab_size)) {
      return Refuse(message, "a token beyond the vocabulary");
    }
  }
  return absl::OkStatus();
}

}  // namespace

void WriteStep(const Batch& batch, v1::Step& message) {
  message.set_step(batch.step);
  Write(batch.token_ids, *message.mutable_token_ids());
  Write(batch.positions, *message.mutable_positions());
  Write(batch.row_begin, *message.mutable_row_begin());
  Write(batch.slots, *message.mutable_slots());
  for (const SlotStart& start : batch.slot_starts) {
    v1::SlotStart& to = *message.add_slot_starts();
    to.set_slot(start.slot);
    to.set_num_prompt_tokens(start.num_prompt_tokens);
    WriteSampling(start.sampling, *to.mutable_sampling());
    Write(start.tokens, *to.mutable_tokens());
  }
  for (const BlockUpdate& update : batch.block_updates) {
    message.add_block_updates(update.slot);
    message.add_block_updates(update.index);
    message.add_block_updates(update.block);
  }
  for (const SamplingRow& row : batch.sampling) {
    v1::SamplingRow& to = *message.add_sampling();
    to.set_row(row.row);
    to.set_position(row.position);
    if (row.known.has_value()) to.set_known(*row.known);
  }
}

absl::StatusOr<Batch> ReadStep(const v1::Step& message, const EngineLimits& limits) {
  Batch batch{.step = message.step(),
              .token_ids = Read(message.token_ids()),
              .positions = Read(message.positions()),
              .row_begin = Read(message.row_begin()),
              .slots = Read(message.slots())};
  RETURN_IF_ERROR(CheckShape(message, batch, limits));
  RETURN_IF_ERROR(CheckSlots(message, limits));
  RETURN_IF_ERROR(CheckSampling(message, batch, limits));
  for (const v1::SlotStart& start : message.slot_starts()) {
    batch.slot_starts.push_back({.slot = start.slot(),
                                 .num_prompt_tokens = start.num_prompt_tokens(),
                                 .sampling = ReadSampling(start.sampling()),
                                 .tokens = Read(start.tokens())});
  }
  for (int i = 0; i < message.block_updates_size(); i += 3) {
    batch.block_updates.push_back(
        {message.block_updates(i), message.block_updates(i + 1), message.block_updates(i + 2)});
  }
  for (const v1::SamplingRow& row : message.sampling()) {
    batch.sampling.push_back({.row = row.row(),
                              .position = row.position(),
                              .known = row.has_known() ? std::optional(row.known()) : std::nullopt});
  }
  return batch;
}

void WriteResult(const StepResult& result, v1::StepDone& message) {
  message.set_step(result.step);
  message.set_compute_ns(absl::ToInt64Nanoseconds(result.compute_time));
  for (const SampledToken& token : result.tokens) {
    v1::SampledToken& to = *message.add_tokens();
    to.set_token(token.token);
    to.set_logprob(token.logprob);
    for (const TokenAndLogprob& top : token.top_logprobs) {
      to.add_top_tokens(top.token);
      to.add_top_logprobs(top.logprob);
    }
    to.set_in_prompt(token.in_prompt);
    to.set_is_not_finite(!token.finite);
  }
}

absl::StatusOr<StepResult> ReadResult(const v1::StepDone& message, size_t num_tokens, const EngineLimits& limits) {
  const auto has = [&message](absl::string_view what) {
    return absl::StrCat("the result of step ", message.step(), " has ", what);
  };
  if (static_cast<size_t>(message.tokens_size()) != num_tokens) {
    return absl::UnavailableError(has("another number of tokens than asked for"));
  }
  StepResult result{.step = message.step(), .tokens = {}, .compute_time = absl::Nanoseconds(message.compute_ns())};
  for (const v1::SampledToken& from : message.tokens()) {
    const auto in_vocabulary = [&](int32_t token) { return token >= 0 && token < limits.vocab_size; };
    const auto& tops = from.top_tokens();
    if (!(in_vocabulary(from.token()) || from.is_not_finite()) ||
        !std::all_of(tops.begin(), tops.end(), in_vocabulary)) {
      return absl::InternalError(has("a token beyond the vocabulary"));
    }
    if (tops.size() != from.top_logprobs_size() || tops.size() > kMaxTopLogprobs) {
      return absl::UnavailableError(has("ragged arrays"));
    }
    SampledToken token{.token = from.token(),
                       .logprob = from.logprob(),
                       .top_logprobs = {},
                       .in_prompt = from.in_prompt(),
                       .finite = !from.is_not_finite()};
    for (int i = 0; i < tops.size(); ++i) token.top_logprobs.push_back({tops[i], from.top_logprobs(i)});
    result.tokens.push_back(std::move(token));
  }
  return result;
}

}  // namespace weft
