#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace weft {
namespace {

// Keeps a container of sequences ordered by request id.
template <typename Container>
void InsertByAge(Container& container, std::unique_ptr<Sequence> sequence) {
  const auto place = std::upper_bound(container.begin(), container.end(), sequence,
                                      [](const auto& a, const auto& b) { return a->request->id < b->request->id; });
  container.insert(place, std::move(sequence));
}

}  // namespace

absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens, const EngineLimits& limits) {
  const int64_t num_tokens = num_prompt_tokens + max_tokens;
  if (num_tokens > limits.max_model_len) {
    return absl::InvalidArgumentError(absl::StrCat(num_prompt_tokens, " prompt tokens and ", max_tokens,
                                                   " to generate exceed the model's ", limits.max_model_len));
  }
  const int64_t capacity = static_cast<int64_t>(limits.num_blocks) * limits.block_size;
  if (num_tokens > capacity) {
    return absl::InvalidArgumentError(absl::StrCat(num_prompt_tokens, " prompt tokens and ", max_tokens,
                                                   " to generate exceed the KV cache's ", capacity));
  }
  return absl::OkStatus();
}

Scheduler::Scheduler(const EngineLimits& limits, const Clock& clock)
    : limits_(limits), clock_(clock), pool_(limits.num_blocks, limits.block_size) {
  for (int32_t slot = limits.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

bool Scheduler::WantsMore() const {
  int waiting_tokens = 0;
  for (const auto& sequence : waiting_) waiting_tokens += sequence->num_known();
  return !out_of_blocks_ && waiting_.size() < free_slots_.size() && waiting_tokens < limits_.max_num_batched_tokens;
}

void Scheduler::Add(std::unique_ptr<Request> request) {
  CHECK(CheckFits(static_cast<int64_t>(request->prompt.size()), request->stop.max_tokens, limits_).ok(),
        "a request that can never fit is refused when it arrives");
  InsertByAge(waiting_, std::make_unique<Sequence>(std::move(request), pool_));
}

Batch Scheduler::Schedule() {
  StepBudget budget{.tokens = limits_.max_num_batched_tokens, .scores = limits_.max_num_scores};
  DropCancelled();
  GrowRunning(budget);
  AdmitWaiting(budget);
  return BuildBatch();
}

void Scheduler::DropCancelled() {
  for (auto& sequence : running_) {
    if (sequence->leaving != Sequence::Leaving::kFinished && sequence->request->sink->Cancelled()) {
      Finish(*sequence, {.reason = FinishReason::kCancelled});
    }
  }
  for (auto& sequence : waiting_) {
    if (sequence->request->sink->Cancelled()) Finish(*sequence, {.reason = FinishReason::kCancelled});
  }
  std::erase_if(waiting_, [](const auto& sequence) { return sequence->leaving != Sequence::Leaving::kNo; });
  SweepLeaving();
}

// Sequences that need one token come before those that need many, so that nobody's next token waits for the budget that
// a long prompt eats. Among equals, the oldest first.
void Scheduler::GrowRunning(StepBudget& budget) {
  std::vector<Sequence*> order;
  for (auto& sequence : running_) order.push_back(sequence.get());
  std::stable_partition(order.begin(), order.end(), [](const Sequence* s) { return s->num_uncomputed() == 1; });
  for (Sequence* sequence : order) GrowOne(*sequence, budget);
  // A sequence chosen early may have been preempted for an older one later.
  std::erase_if(chosen_, [](const Chunk& chunk) { return chunk.sequence->leaving != Sequence::Leaving::kNo; });
  SweepLeaving();
}

void Scheduler::GrowOne(Sequence& sequence, StepBudget& budget) {
  if (sequence.leaving != Sequence::Leaving::kNo) return;
  const int num_tokens = sequence.LimitByScores(std::min(budget.tokens, sequence.num_uncomputed()), budget.scores);
  if (num_tokens == 0 || !ReserveBlocks(sequence, sequence.num_scheduled + num_tokens, budget)) return;
  const int num_scores = sequence.NumScores(num_tokens);
  chosen_.push_back({&sequence, num_tokens, num_scores});
  budget.tokens -= num_tokens;
  budget.scores -= num_scores;
}

// Blocks of a victim that is in flight come free only when its last step is committed; until then `sequence` pauses.
bool Scheduler::ReserveBlocks(Sequence& sequence, int num_tokens, StepBudget& budget) {
  while (!sequence.blocks.GrowTo(NumBlocks(num_tokens))) {
    budget.preempted = true;
    const auto newest = std::find_if(running_.rbegin(), running_.rend(),
                                     [](const auto& s) { return s->leaving == Sequence::Leaving::kNo; });
    Sequence& victim = **newest;
    // Blocks that are already on their way back may suffice.
    const bool some_leaving = std::any_of(running_.begin(), running_.end(), [](const auto& s) {
      return s->leaving != Sequence::Leaving::kNo && s->blocks.size() > 0;
    });
    if (some_leaving) return false;
    Preempt(victim);
    if (&victim == &sequence) return false;
  }
  return true;
}

void Scheduler::AdmitWaiting(StepBudget& budget) {
  if (budget.preempted) return;
  out_of_blocks_ = false;
  for (size_t i = 0; i < waiting_.size() && !free_slots_.empty() && budget.tokens > 0;) {
    Sequence& sequence = *waiting_[i];
    if (WaitsForPrefix(sequence)) {
      ++i;  // and holds nobody up
      continue;
    }
    out_of_blocks_ = !AdmitOne(sequence);
    if (out_of_blocks_) return;
    InsertByAge(running_, std::move(waiting_[i]));
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    GrowOne(sequence, budget);
  }
}

// Its blocks and a slot; false, and nothing changes, when the pool can't give them.
bool Scheduler::AdmitOne(Sequence& sequence) {
  TakeUpPrefix(sequence);
  const int num_blocks = NumBlocks(sequence.num_known());
  // One block of headroom for each that runs, or the newcomer would be preempted at once.
  const int needed = num_blocks - sequence.blocks.size() + static_cast<int>(running_.size());
  if (needed > pool_.num_available()) {
    DropBlocks(sequence);
    return false;
  }
  CHECK(sequence.blocks.GrowTo(num_blocks), "enough blocks are available");
  for (int block = sequence.num_registered; block < NumShareable(sequence); ++block) {
    computing_.try_emplace(sequence.prefix_keys[static_cast<size_t>(block)], &sequence);
  }
  sequence.slot = free_slots_.back();
  free_slots_.pop_back();
  return true;
}

// Blocks that this sequence can take up at most. Its last known token is always computed anew, because the logits
// behind it are wanted; so are all of a prompt that is to be scored.
int Scheduler::NumShareable(const Sequence& sequence) const {
  if (sequence.NumScores(sequence.num_known()) > 0) return 0;
  return std::min(static_cast<int>(sequence.prefix_keys.size()), (sequence.num_known() - 1) / limits_.block_size);
}

// Blocks are registered in order, so the first that is missing is found by bisection.
bool Scheduler::WaitsForPrefix(const Sequence& sequence) const {
  if (computing_.empty()) return false;
  const auto begin = sequence.prefix_keys.begin();
  const auto end = begin + NumShareable(sequence);
  const auto missing = std::partition_point(begin, end, [this](const PrefixKey& key) { return pool_.Has(key); });
  return missing != end && computing_.contains(*missing);
}

void Scheduler::TakeUpPrefix(Sequence& sequence) {
  const int most = NumShareable(sequence);
  int block = 0;
  while (block < most &&
         sequence.blocks.TakeUp(sequence.prefix_keys[static_cast<size_t>(block)], TokensOfBlock(sequence, block))) {
    ++block;
  }
  sequence.num_registered = block;
  sequence.num_computed = sequence.num_scheduled = block * limits_.block_size;
}

// What is computed by now may be taken up by others.
void Scheduler::RegisterBlocks(Sequence& sequence) {
  const std::optional<PrefixKey>& scope = sequence.request->prefix_scope;
  if (!scope.has_value()) return;
  std::vector<PrefixKey>& keys = sequence.prefix_keys;
  const int num_tokens = std::min(sequence.num_computed, sequence.num_known());
  for (int& block = sequence.num_registered; (block + 1) * limits_.block_size <= num_tokens; ++block) {
    const auto i = static_cast<size_t>(block);
    const absl::Span<const int32_t> tokens = TokensOfBlock(sequence, block);
    if (i == keys.size()) keys.push_back(NextPrefixKey(keys.empty() ? *scope : keys.back(), tokens));
    pool_.Register(sequence.blocks.ids()[i], keys[i], tokens);
    const auto computing = computing_.find(keys[i]);
    if (computing != computing_.end() && computing->second == &sequence) computing_.erase(computing);
  }
}

// It won't compute what it promised; who waits for that computes it.
void Scheduler::ForgetComputing(const Sequence& sequence) {
  for (auto key = sequence.prefix_keys.begin() + sequence.num_registered; key < sequence.prefix_keys.end(); ++key) {
    const auto computing = computing_.find(*key);
    if (computing != computing_.end() && computing->second == &sequence) computing_.erase(computing);
  }
}

void Scheduler::DropBlocks(Sequence& sequence) {
  sequence.blocks.Clear();
  sequence.num_registered = 0;
  sequence.num_computed = sequence.num_scheduled = 0;
}

absl::Span<const int32_t> Scheduler::TokensOfBlock(const Sequence& sequence, int block) const {
  const auto size = static_cast<size_t>(limits_.block_size);
  return absl::MakeConstSpan(sequence.tokens).subspan(static_cast<size_t>(block) * size, size);
}

Batch Scheduler::BuildBatch() {
  Batch batch;
  if (chosen_.empty()) return batch;
  batch.step = next_step_++;
  batch.row_begin.push_back(0);
  batch.block_begin.push_back(0);
  for (Chunk& chunk : chosen_) {
    Sequence& sequence = *chunk.sequence;
    chunk.samples = sequence.num_scheduled + chunk.num_tokens == sequence.num_known() + sequence.num_pending;
    AppendRow(chunk, batch);
    sequence.num_scheduled += chunk.num_tokens;
    sequence.num_pending += chunk.samples ? 1 : 0;
    ++sequence.num_in_flight;
  }
  stats_.batch_rows.Observe(batch.num_rows());
  stats_.batch_tokens.Observe(batch.num_tokens());
  in_flight_.push_back({batch.step, std::exchange(chosen_, {})});
  return batch;
}

void Scheduler::AppendRow(const Chunk& chunk, Batch& batch) {
  Sequence& sequence = *chunk.sequence;
  const Request& request = *sequence.request;
  if (!sequence.slot_started) {
    const bool needs_history = request.sampling.HasPenalties();
    batch.slot_starts.push_back({sequence.slot, sequence.num_prompt(), request.sampling,
                                 needs_history ? sequence.tokens : std::vector<int32_t>()});
    sequence.slot_started = true;
  }
  if (!sequence.was_scheduled) {
    stats_.queue_seconds.Observe(absl::ToDoubleSeconds(clock_.Now() - request.arrival));
    stats_.num_prompt_tokens += sequence.num_prompt();
    stats_.num_cached_tokens += sequence.num_scheduled;
    events_.push_back({request.sink, request.tenant, sequence.num_scheduled, std::nullopt, std::nullopt});
    sequence.was_scheduled = true;
  }
  const int end = sequence.num_scheduled + chunk.num_tokens;
  for (int position = sequence.num_scheduled; position < end; ++position) {
    const bool known = position < sequence.num_known();
    batch.token_ids.push_back(known ? sequence.tokens[static_cast<size_t>(position)] : kLastSampled);
    batch.positions.push_back(position);
  }
  const auto first_block = sequence.blocks.ids().begin();
  batch.block_ids.insert(batch.block_ids.end(), first_block, first_block + NumBlocks(end));
  batch.block_begin.push_back(static_cast<int32_t>(batch.block_ids.size()));
  batch.row_begin.push_back(batch.num_tokens());
  batch.slots.push_back(sequence.slot);
  const int row = batch.num_rows() - 1;
  const int first_score = std::max(sequence.num_scheduled, sequence.num_scored) + 1;
  for (int position = first_score; position < first_score + chunk.num_scores; ++position) {
    batch.sampling.push_back({row, position, sequence.tokens[static_cast<size_t>(position)]});
  }
  if (chunk.samples) batch.sampling.push_back({row, end, std::nullopt});
}

void Scheduler::Commit(const StepResult& result) {
  CHECK(!in_flight_.empty() && in_flight_.front().step == result.step, "steps are committed in order");
  const StepInFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t next_token = 0;
  for (const Chunk& chunk : step.chunks) {
    Sequence& sequence = *chunk.sequence;
    --sequence.num_in_flight;
    sequence.num_computed += chunk.num_tokens;
    stats_.num_tokens_computed += chunk.num_tokens;
    RegisterBlocks(sequence);
    for (int i = 0; i < chunk.num_scores; ++i) CommitScore(sequence, result.tokens[next_token++]);
    if (!chunk.samples) continue;
    --sequence.num_pending;
    ++stats_.num_tokens_sampled;
    CommitToken(sequence, result.tokens[next_token++]);
  }
  CHECK(next_token == result.tokens.size(), "a step draws and scores the tokens it was asked for");
  ++stats_.num_steps;
  stats_.step_seconds.Observe(absl::ToDoubleSeconds(result.compute_time));
  SweepLeaving();
}

void Scheduler::CommitScore(Sequence& sequence, const SampledToken& token) {
  if (sequence.leaving == Sequence::Leaving::kFinished) return;
  if (!token.finite) return FinishNotFinite(sequence);
  ++sequence.num_scored;
  events_.push_back({sequence.request->sink, sequence.request->tenant, std::nullopt, token, std::nullopt});
}

// A preempted sequence still takes its token: tokens are kept, and a draw that depends only on (seed, sequence,
// position) would come out the same anyway.
void Scheduler::CommitToken(Sequence& sequence, const SampledToken& token) {
  if (sequence.leaving == Sequence::Leaving::kFinished) return;  // drawn past its end
  if (!token.finite) return FinishNotFinite(sequence);
  const Request& request = *sequence.request;
  const std::vector<int32_t>& stops = request.stop.stop_token_ids;
  if (std::find(stops.begin(), stops.end(), token.token) != stops.end()) {
    Finish(sequence, {.reason = FinishReason::kStop, .stop_token = token.token});
    return;
  }
  sequence.tokens.push_back(token.token);
  events_.push_back({request.sink, request.tenant, std::nullopt, token, std::nullopt});
  if (sequence.num_output() >= request.stop.max_tokens) Finish(sequence, {.reason = FinishReason::kLength});
}

void Scheduler::FinishNotFinite(Sequence& sequence) {
  Finish(sequence, {.reason = FinishReason::kError, .status = absl::InternalError("the logits were not finite")});
}

void Scheduler::Finish(Sequence& sequence, FinishEvent event) {
  sequence.leaving = Sequence::Leaving::kFinished;
  ForgetComputing(sequence);
  events_.push_back({sequence.request->sink, sequence.request->tenant, std::nullopt, std::nullopt, std::move(event)});
}

void Scheduler::Preempt(Sequence& sequence) {
  sequence.leaving = Sequence::Leaving::kPreempted;
  ForgetComputing(sequence);
  ++stats_.num_preemptions;
  if (sequence.num_in_flight == 0) sequence.blocks.Clear();
}

// Sequences that leave and are in no step any more give up slot and blocks; the preempted go back to wait.
void Scheduler::SweepLeaving() {
  std::vector<std::unique_ptr<Sequence>> staying;
  for (auto& sequence : running_) {
    if (sequence->leaving == Sequence::Leaving::kNo || sequence->num_in_flight > 0) {
      staying.push_back(std::move(sequence));
      continue;
    }
    free_slots_.push_back(sequence->slot);
    if (sequence->leaving == Sequence::Leaving::kFinished) continue;
    DropBlocks(*sequence);
    sequence->slot = -1;
    sequence->slot_started = false;
    sequence->leaving = Sequence::Leaving::kNo;
    InsertByAge(waiting_, std::move(sequence));
  }
  running_ = std::move(staying);
}

void Scheduler::Abort(const absl::Status& status) {
  in_flight_.clear();
  for (auto& sequence : running_) {
    sequence->num_in_flight = 0;
    if (sequence->leaving != Sequence::Leaving::kFinished) {
      Finish(*sequence, {.reason = FinishReason::kError, .status = status});
    }
  }
  for (auto& sequence : waiting_) Finish(*sequence, {.reason = FinishReason::kError, .status = status});
  waiting_.clear();
  SweepLeaving();
}

std::vector<Event> Scheduler::TakeEvents() { return std::exchange(events_, {}); }

Stats Scheduler::stats() const {
  Stats stats = stats_;
  stats.num_waiting = static_cast<int64_t>(waiting_.size());
  stats.num_running = static_cast<int64_t>(running_.size());
  stats.num_blocks = pool_.num_blocks();
  stats.num_free_blocks = pool_.num_available();
  stats.num_cached_blocks = pool_.num_cached();
  stats.num_evictions = pool_.num_evictions();
  return stats;
}

void Scheduler::CheckInvariants() const {
  int num_held = 0;
  for (const auto& sequence : running_) {
    num_held += sequence->blocks.size();
    CHECK(sequence->num_computed <= sequence->num_scheduled, "what is computed was scheduled");
    CHECK(sequence->num_scheduled <= sequence->num_known() + sequence->num_pending, "only known tokens are scheduled");
    CHECK(sequence->num_pending <= sequence->num_in_flight, "a step draws at most one token a sequence");
    CHECK(NumBlocks(sequence->num_scheduled) <= sequence->blocks.size() ||
              sequence->leaving == Sequence::Leaving::kPreempted,
          "a block table covers what is scheduled");
  }
  for (const auto& sequence : waiting_) {
    CHECK(sequence->blocks.size() == 0 && sequence->slot == -1, "who waits holds nothing");
    CHECK(sequence->num_in_flight == 0 && sequence->num_pending == 0, "who waits is in no step");
  }
  pool_.CheckInvariants();
  CHECK(num_held == pool_.NumHolders(), "a block's holders are sequences that run");
  for (const auto& [key, owner] : computing_) {
    CHECK(std::any_of(running_.begin(), running_.end(), [o = owner](const auto& s) { return s.get() == o; }),
          "who computes a prefix runs");
  }
  CHECK(running_.size() + free_slots_.size() == static_cast<size_t>(limits_.max_num_seqs), "a slot a running sequence");
}

}  // namespace weft
