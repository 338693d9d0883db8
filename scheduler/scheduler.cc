#include "scheduler/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace weft {
namespace {

// Of a step's time, for those that draw, however large a share is for prompts.
constexpr double kLeastRowShare = 0.25;

bool RanksBefore(const Request& a, const Request& b) {
  return a.priority != b.priority ? a.priority > b.priority : a.id < b.id;
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

Scheduler::Scheduler(const EngineLimits& limits, const SchedulerOptions& options, const Clock& clock)
    : limits_(limits),
      options_(options),
      clock_(clock),
      pool_(limits.num_blocks, limits.block_size, options.tell_cache_changes),
      pacer_({.max_tokens = limits.max_num_batched_tokens,
              .max_share = options.max_prefill_share,
              .max_step_time = options.max_itl}),
      row_pacer_({.max_rows = limits.max_num_seqs,
                  .max_step_time = options.max_itl * std::max(kLeastRowShare, 1 - options.max_prefill_share)}),
      max_running_(limits.max_num_seqs) {
  for (int32_t slot = limits.max_num_seqs - 1; slot >= 0; --slot) free_slots_.push_back(slot);
}

void Scheduler::Add(std::unique_ptr<Request> request) {
  CHECK(!free_slots_.empty(), "Judge has said that it can start");
  auto sequence = std::make_unique<Sequence>(std::move(request), pool_);
  TakeUpPrefix(*sequence);
  CHECK(sequence->blocks.GrowTo(NumBlocks(sequence->num_known())), "enough blocks are available");
  sequence->slot = free_slots_.back();
  free_slots_.pop_back();
  const auto place = std::upper_bound(running_.begin(), running_.end(), sequence, [](const auto& a, const auto& b) {
    return RanksBefore(*a->request, *b->request);
  });
  running_.insert(place, std::move(sequence));
}

const Batch& Scheduler::Schedule() {
  StepBudget budget{.tokens = limits_.max_num_batched_tokens, .scores = limits_.max_num_scores};
  building_.num_results = 0;
  building_.prompts = {};
  building_.disturbs = false;
  short_of_blocks_ = false;
  DropEnded();
  GrowRunning(budget);
  // With several stages, those whose turn it was may all have given way for want of blocks; then it is the others'.
  for (size_t tries = running_.size(); tries > 0 && building_.chunks.empty() && in_flight_.empty(); --tries) {
    GrowRunning(budget);
  }
  return BuildBatch();
}

void Scheduler::DropEnded() {
  const absl::Time now = clock_.Now();
  for (auto& sequence : running_) {
    if (sequence->leaving == Sequence::Leaving::kFinished) continue;
    std::optional<FinishEvent> end = EndOf(*sequence->request, now);
    if (end.has_value()) Finish(*sequence, *std::move(end));
  }
  SweepLeaving();
}

// Sequences that need one token come before those that need many, so that nobody's next token waits for the budget that
// a long prompt eats.
void Scheduler::GrowRunning(StepBudget& budget) {
  GrowDecoding(budget);
  GrowPrompts(budget);
  // A sequence chosen early may have been preempted for one of higher rank later.
  std::vector<Chunk>& chunks = building_.chunks;
  std::erase_if(chunks, [](const Chunk& chunk) { return chunk.sequence->leaving != Sequence::Leaving::kNo; });
  SweepLeaving();
}

// With several stages, the sequences take turns: each waits until a step of every stage's has passed, so that its next
// token has been drawn when its next step begins, and no step takes more than a stage's part of them.
void Scheduler::GrowDecoding(StepBudget& budget) {
  decoding_.clear();
  int num_decoding = 0;
  for (const auto& sequence : running_) {
    if (sequence->leaving != Sequence::Leaving::kNo || sequence->num_uncomputed() > 1) continue;
    ++num_decoding;
    const bool is_being_drawn = sequence->num_pending > 0 && next_step_ - sequence->last_step < limits_.num_stages;
    if (sequence->num_uncomputed() == 1 && !is_being_drawn) decoding_.push_back(sequence.get());
  }
  const auto most = static_cast<size_t>((num_decoding + limits_.num_stages - 1) / limits_.num_stages);
  if (decoding_.size() > most) TakeThoseThatWaitedLongest(most);
  for (Sequence* sequence : decoding_) GrowOne(*sequence, budget);
  building_.others_decode = !building_.chunks.empty();
}

// Of decoding_, which stays in order of rank.
void Scheduler::TakeThoseThatWaitedLongest(size_t count) {
  std::vector<int64_t>& steps = last_steps_;
  steps.clear();
  for (const Sequence* sequence : decoding_) steps.push_back(sequence->last_step);
  const auto nth = steps.begin() + static_cast<std::ptrdiff_t>(count);
  std::nth_element(steps.begin(), nth - 1, steps.end());
  const int64_t latest = *(nth - 1);
  size_t num_latest = count - static_cast<size_t>(std::count_if(decoding_.begin(), decoding_.end(),
                                                                [latest](auto* s) { return s->last_step < latest; }));
  std::erase_if(decoding_, [&](const Sequence* sequence) {
    if (sequence->last_step != latest) return sequence->last_step > latest;
    if (num_latest == 0) return true;
    --num_latest;
    return false;
  });
}

void Scheduler::GrowOne(Sequence& sequence, StepBudget& budget) {
  if (sequence.leaving != Sequence::Leaving::kNo) return;
  const int most = std::min(budget.tokens, sequence.num_uncomputed());
  const int num_tokens = sequence.LimitByScores(most, budget.scores);
  if (num_tokens == 0 || !ReserveBlocks(sequence, sequence.num_scheduled + num_tokens)) return;
  const int num_scores = sequence.NumScores(num_tokens);
  building_.chunks.push_back({&sequence, num_tokens, num_scores});
  budget.tokens -= num_tokens;
  budget.scores -= num_scores;
}

// Blocks of a victim that is in flight come free only when its last step is committed; until then `sequence` pauses.
bool Scheduler::ReserveBlocks(Sequence& sequence, int num_tokens) {
  while (!sequence.blocks.GrowTo(NumBlocks(num_tokens))) {
    short_of_blocks_ = true;
    // Blocks that are already on their way back may suffice.
    const bool some_leaving = std::any_of(running_.begin(), running_.end(), [](const auto& s) {
      return s->leaving != Sequence::Leaving::kNo && s->blocks.size() > 0;
    });
    if (some_leaving) return false;
    Sequence& victim = **std::find_if(running_.rbegin(), running_.rend(),
                                      [](const auto& s) { return s->leaving == Sequence::Leaving::kNo; });
    Preempt(victim, PreemptionReason::kBlocks);
    if (&victim == &sequence) return false;
  }
  return true;
}

const Batch& Scheduler::BuildBatch() {
  batch_.Clear();
  if (building_.chunks.empty()) return batch_;
  batch_.step = building_.step = next_step_++;
  for (Chunk& chunk : building_.chunks) {
    Sequence& sequence = *chunk.sequence;
    chunk.samples = sequence.num_scheduled + chunk.num_tokens == sequence.num_known() + sequence.num_pending;
    AppendRow(chunk);
    sequence.num_scheduled += chunk.num_tokens;
    sequence.num_pending += chunk.samples ? 1 : 0;
    ++sequence.num_in_flight;
    sequence.last_step = batch_.step;
    building_.num_results += static_cast<size_t>(chunk.num_scores) + (chunk.samples ? 1 : 0);
  }
  num_with_prompts_ = building_.prompts.num_tokens > 0 ? num_with_prompts_ + 1 : 0;
  stats_.batch_rows.Observe(batch_.num_rows());
  stats_.batch_tokens.Observe(batch_.num_tokens());
  in_flight_.push_back(std::exchange(building_, {}));
  if (!spare_chunks_.empty()) {
    building_.chunks = std::move(spare_chunks_.back());
    spare_chunks_.pop_back();
  }
  return batch_;
}

void Scheduler::AppendRow(const Chunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  if (!sequence.slot_started) StartSlot(sequence);
  if (!sequence.request->progress.started) TellStart(sequence);
  const int end = sequence.num_scheduled + chunk.num_tokens;
  for (int position = sequence.num_scheduled; position < end; ++position) {
    const bool known = position < sequence.num_known();
    batch_.token_ids.push_back(known ? sequence.tokens[static_cast<size_t>(position)] : kLastSampled);
    batch_.positions.push_back(position);
  }
  for (int& block = sequence.num_sent_blocks; block < NumBlocks(end); ++block) {
    batch_.block_updates.push_back({sequence.slot, block, sequence.blocks.ids()[static_cast<size_t>(block)]});
  }
  batch_.row_begin.push_back(batch_.num_tokens());
  batch_.slots.push_back(sequence.slot);
  const int row = batch_.num_rows() - 1;
  const int first_score = std::max(sequence.num_scheduled, sequence.num_scored) + 1;
  for (int position = first_score; position < first_score + chunk.num_scores; ++position) {
    batch_.sampling.push_back({row, position, sequence.tokens[static_cast<size_t>(position)]});
  }
  if (chunk.samples) batch_.sampling.push_back({row, end, std::nullopt});
}

void Scheduler::StartSlot(Sequence& sequence) {
  const SamplingParams& sampling = sequence.request->sampling;
  batch_.slot_starts.push_back({sequence.slot, sequence.num_prompt(), sampling,
                                sampling.HasPenalties() ? sequence.tokens : std::vector<int32_t>()});
  sequence.slot_started = true;
}

void Scheduler::TellStart(Sequence& sequence) {
  const absl::Duration waited =
      std::max(clock_.Now() - sequence.request->arrival, absl::ZeroDuration());  // it may jump
  stats_.queue_seconds.Observe(absl::ToDoubleSeconds(waited));
  stats_.num_prompt_tokens += sequence.num_prompt();
  stats_.num_cached_tokens += sequence.num_scheduled;
  Tell(sequence, Event::Started{sequence.num_scheduled});
  sequence.request->progress.started = true;
}

void Scheduler::Tell(const Sequence& sequence, decltype(Event::what) what) {
  events_.push_back({sequence.request.get(), std::move(what)});
}

void Scheduler::Finish(Sequence& sequence, FinishEvent event) {
  sequence.leaving = Sequence::Leaving::kFinished;
  ForgetComputing(sequence);
  Tell(sequence, std::move(event));
}

void Scheduler::Preempt(Sequence& sequence, PreemptionReason reason) {
  sequence.leaving = Sequence::Leaving::kPreempted;
  ForgetComputing(sequence);
  ++stats_.num_preemptions[static_cast<size_t>(reason)];
  if (sequence.num_in_flight == 0) sequence.blocks.Clear();
}

// Sequences that leave and are in no step any more give up slot and blocks.
void Scheduler::SweepLeaving() {
  size_t staying = 0;
  for (size_t i = 0; i < running_.size(); ++i) {
    std::unique_ptr<Sequence> sequence = std::move(running_[i]);
    if (sequence->leaving == Sequence::Leaving::kNo || sequence->num_in_flight > 0) {
      running_[staying++] = std::move(sequence);
      continue;
    }
    free_slots_.push_back(sequence->slot);
    sequence->blocks.Clear();
    misfits_.clear();
    if (sequence->leaving == Sequence::Leaving::kFinished) {
      max_running_ = std::max(row_pacer_.max_rows(), max_running_ - 1);
      finished_.push_back(std::move(sequence));
    } else {
      preempted_.push_back(sequence->TakeRequest());
    }
  }
  running_.resize(staying);
}

std::vector<Scheduler::Survivor> Scheduler::Abort() {
  std::vector<Survivor> survivors;
  for (auto& sequence : running_) {
    const bool was_in_step = sequence->num_in_flight > 0;
    sequence->num_in_flight = 0;
    if (sequence->leaving == Sequence::Leaving::kFinished) continue;
    ForgetComputing(*sequence);
    free_slots_.push_back(sequence->slot);
    sequence->blocks.Clear();
    survivors.push_back({sequence->TakeRequest(), was_in_step});
    sequence.reset();
  }
  std::erase(running_, nullptr);
  in_flight_.clear();
  SweepLeaving();
  for (auto& request : std::exchange(preempted_, {})) survivors.push_back({std::move(request), false});
  pool_.ForgetContent();
  misfits_.clear();
  room_for_.reset();
  disturbance_ = absl::ZeroDuration();
  return survivors;
}

void Scheduler::ClearEvents() {
  events_.clear();
  finished_.clear();
}

std::vector<std::unique_ptr<Request>> Scheduler::TakePreempted() { return std::exchange(preempted_, {}); }

Stats Scheduler::stats() const {
  Stats stats = stats_;
  stats.num_running = static_cast<int64_t>(running_.size());
  stats.num_blocks = pool_.num_blocks();
  stats.num_free_blocks = pool_.num_available();
  stats.num_cached_blocks = pool_.num_cached();
  stats.num_evictions = pool_.num_evictions();
  stats.max_running = max_running_;
  stats.max_prefill_tokens = pacer_.max_tokens(/*others_decode=*/true);
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
              (sequence->leaving == Sequence::Leaving::kPreempted && sequence->num_in_flight == 0),
          "a block table covers what is scheduled");
  }
  CHECK(std::is_sorted(running_.begin(), running_.end(),
                       [](const auto& a, const auto& b) { return RanksBefore(*a->request, *b->request); }),
        "sequences run by rank");
  pool_.CheckInvariants();
  CHECK(num_held == pool_.NumHolders(), "a block's holders are sequences that run");
  for (const auto& [key, owner] : computing_) {
    CHECK(std::any_of(running_.begin(), running_.end(), [o = owner](const auto& s) { return s.get() == o; }),
          "who computes a prefix runs");
  }
  CHECK(static_cast<int>(running_.size()) <= max_running_, "no more run than leave a step short");
  CHECK(running_.size() + free_slots_.size() == static_cast<size_t>(limits_.max_num_seqs), "a slot a running sequence");
}

}  // namespace weft
