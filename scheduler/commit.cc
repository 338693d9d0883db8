// The part of Scheduler that takes a step's results.
#include <algorithm>
#include <utility>

#include "scheduler/scheduler.h"

namespace weft {
namespace {

constexpr absl::Duration kMostDisturbance = absl::Seconds(1);  // a step that took forever is not held against anybody

}  // namespace

absl::StatusOr<ServiceRate::Step> Scheduler::Commit(const StepResult& result) {
  const int64_t oldest = in_flight_.empty() ? next_step_ : in_flight_.front().step;
  if (result.step < oldest) return ServiceRate::Step{};
  if (result.step > oldest || in_flight_.empty()) return absl::InternalError("the engine answered out of order");
  if (result.tokens.size() != in_flight_.front().num_results) {
    return absl::InternalError("the engine drew another number of tokens than it was asked for");
  }
  StepInFlight step = std::move(in_flight_.front());
  in_flight_.erase(in_flight_.begin());
  absl::Span<const SampledToken> tokens = result.tokens;
  ServiceRate::Step did{.took = result.compute_time, .num_prompt_tokens = step.prompts.num_tokens};
  for (const Chunk& chunk : step.chunks) {
    const size_t count = static_cast<size_t>(chunk.num_scores) + (chunk.samples ? 1 : 0);
    if (CommitChunk(chunk, tokens.first(count))) ++did.num_finished;
    tokens.remove_prefix(count);
  }
  Pace(step, result.compute_time);
  room_for_.reset();  // whoever still waits is judged again
  ObserveDisturbance(step, result.compute_time);
  ++stats_.num_steps;
  stats_.step_seconds.Observe(absl::ToDoubleSeconds(result.compute_time));
  SweepLeaving();
  did.backlog.has_free_slots = NumFreeRows() > 0;
  for (const auto& sequence : running_) {
    const int uncomputed = sequence->num_uncomputed();
    if (uncomputed <= 1 || sequence->leaving != Sequence::Leaving::kNo) continue;
    const auto c = static_cast<size_t>(sequence->request->priority);
    ++did.backlog.num_prompts[c];
    did.backlog.num_prompt_tokens[c] += uncomputed;
  }
  step.chunks.clear();
  spare_chunks_.push_back(std::move(step.chunks));
  return did;
}

// Between two tokens of a sequence each stage has one step.
void Scheduler::Pace(const StepInFlight& step, absl::Duration took) {
  const int num_stages = limits_.num_stages;
  pacer_.Observe(step.prompts, took * num_stages);
  if (step.prompts.num_tokens == 0) {
    row_pacer_.Observe(static_cast<int>(step.chunks.size()) * num_stages, took * num_stages);
  }
  // Who runs may go on: the bound is kept by taking on nobody in the place of who ends.
  const int before = max_running_;
  max_running_ = std::max(row_pacer_.max_rows(), std::min(before, static_cast<int>(running_.size())));
  if (max_running_ > before) misfits_.clear();  // there is a row for one of them
}

// Where prompts that give way take part in so many steps that this stays at zero, they take their share of the time.
void Scheduler::ObserveDisturbance(const StepInFlight& step, absl::Duration took) {
  const double share = options_.max_prefill_share;
  const absl::Duration sum = disturbance_ + took * (step.disturbs ? 1 - share : -share);
  disturbance_ = std::clamp(sum, absl::ZeroDuration(), kMostDisturbance);
}

// True: this ended the sequence.
bool Scheduler::CommitChunk(const Chunk& chunk, absl::Span<const SampledToken> tokens) {
  Sequence& sequence = *chunk.sequence;
  const bool had_ended = sequence.leaving == Sequence::Leaving::kFinished;
  --sequence.num_in_flight;
  sequence.num_computed += chunk.num_tokens;
  sequence.num_pending -= chunk.samples ? 1 : 0;
  stats_.num_tokens_computed += chunk.num_tokens;
  stats_.num_tokens_sampled += chunk.samples ? 1 : 0;
  if (!std::all_of(tokens.begin(), tokens.end(), [](const SampledToken& token) { return token.finite; })) {
    // What led to this may be in its blocks; whoever takes them up would end so too.
    pool_.Unregister(sequence.blocks.ids());
  } else if (!had_ended) {
    RegisterBlocks(sequence);
  }
  for (const SampledToken& token : tokens) {
    if (sequence.leaving == Sequence::Leaving::kFinished) break;  // drawn past its end
    if (!token.finite) {
      Finish(sequence, {.reason = FinishReason::kError, .status = absl::InternalError("the logits were not finite")});
    } else if (token.in_prompt) {
      CommitScore(sequence, token);
    } else {
      CommitToken(sequence, token);
    }
  }
  return !had_ended && sequence.leaving == Sequence::Leaving::kFinished;
}

void Scheduler::CommitScore(Sequence& sequence, const SampledToken& token) {
  ++sequence.num_scored;
  Tell(sequence, token);
}

// A preempted sequence still takes its token: tokens are kept, and a draw that depends only on (seed, sequence,
// position) would come out the same anyway.
void Scheduler::CommitToken(Sequence& sequence, const SampledToken& token) {
  const Request& request = *sequence.request;
  const std::vector<int32_t>& stops = request.stop.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), token.token) != stops.end()) {
    Finish(sequence, {.reason = FinishReason::kStop, .stop_token = token.token});
    return;
  }
  sequence.tokens.push_back(token.token);
  Tell(sequence, token);
  std::optional<int>& suspect_until = sequence.request->progress.suspect_until;
  if (suspect_until.has_value() && sequence.num_known() > *suspect_until) suspect_until.reset();
  if (sequence.num_output() >= request.stop.max_tokens) Finish(sequence, {.reason = FinishReason::kLength});
}

}  // namespace weft
