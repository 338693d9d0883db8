// Decides what each step computes. There is no prefill phase and no decode phase: computed tokens catch up with known
// tokens, within a budget of tokens and rows a step.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/fair_queue.h"
#include "scheduler/kv_block_pool.h"
#include "scheduler/prefill_pacer.h"
#include "scheduler/request.h"
#include "scheduler/row_pacer.h"
#include "scheduler/sequence.h"
#include "scheduler/service_rate.h"
#include "scheduler/stats.h"

namespace weft {

struct SchedulerOptions {
  // Of a step's tokens, while others decode; and of the time, while somebody decodes who comes before those prompts.
  double max_prefill_share = 0.5;
  // Prompts are cut, and no more sequences run at once, than lets a step take so long.
  absl::Duration max_itl = absl::InfiniteDuration();
  bool tell_cache_changes = false;  // somebody asks for TakeCacheChanges
};

// Something a sink must be told.
struct Event {
  struct Started {
    int64_t num_cached_tokens = 0;
  };

  const Request* request = nullptr;  // lives until ClearEvents
  std::variant<Started, SampledToken, FinishEvent> what;
};

struct Victim {
  Sequence* sequence = nullptr;
  PreemptionReason reason = PreemptionReason::kBlocks;
};

// InvalidArgument when the request could not run even with the engine to itself.
absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens, const EngineLimits& limits);

// Pure host logic on one engine's sequences and blocks; owned and called by one replica's thread. Whoever runs has a
// slot and the blocks of all its known tokens; nobody waits in here.
//
// Rank is by class, then by age. A sequence gets one more block each time it outgrows what it has; when none is free,
// the last in rank is preempted: it keeps its tokens, drops its blocks and goes back to the queue. The first in rank is
// never preempted for blocks, and every request fits alone, so there is always progress.
//
// Prefixes: a block that is full and computed is registered under a key that names all tokens up to its end, and a
// sequence with the same beginning, in the same scope, takes it up instead of computing it. Of several that begin
// alike, one computes and the others wait for its blocks: n choices of one prompt cost one prompt.
class Scheduler {
 public:
  Scheduler(const EngineLimits& limits, const SchedulerOptions& options, const Clock& clock);

  // Whether the request can start at the next step. Where the answer is no only because of those who must give way to
  // it (a lower class; or a tenant that runs more for its weight than the request's would with it), they are preempted,
  // and it can start when their steps have ended; unless another replica makes room for it already (may_preempt is
  // false). Requires CheckFits. Called under the fair queue's lock.
  Verdict Judge(const Request& request, bool may_preempt = true);
  // Those who give way to the request that was judged last suffice, but have not left yet.
  bool makes_room() const { return room_for_.has_value(); }
  // Requires that Judge has just said kTake.
  void Add(std::unique_ptr<Request> request);
  bool HasWork() const { return !running_.empty(); }
  int block_size() const { return limits_.block_size; }
  // Blocks at the request's beginning that it could take up, if somebody had computed them; and those that this pool
  // has.
  int NumShareable(const Request& request) const;
  int NumCachedBlocks(const Request& request) const;

  // The next step, until the next call; empty when there is nothing to compute until an earlier one is committed.
  const Batch& Schedule();
  // Takes the result of the oldest step that Schedule() gave and that has not been committed; says what the step did.
  // A result that has been committed before is ignored. InternalError for one that no engine in its senses gives:
  // nothing is changed then, and the engine must be given up.
  absl::StatusOr<ServiceRate::Step> Commit(const StepResult& result);

  // What happened since ClearEvents, in order.
  absl::Span<Event> events() { return absl::MakeSpan(events_); }
  void ClearEvents();
  // Requests that were preempted and hold nothing any more. To be taken after their events have been told.
  std::vector<std::unique_ptr<Request>> TakePreempted();

  // The engine died: every sequence leaves with what it has, and nothing that its blocks held can be taken up. Ready
  // for another engine.
  struct Survivor {
    std::unique_ptr<Request> request;
    bool was_in_step = false;  // so it may be to blame
  };
  std::vector<Survivor> Abort();

  CacheChanges TakeCacheChanges() { return pool_.TakeChanges(); }

  Stats stats() const;
  const std::vector<std::unique_ptr<Sequence>>& running() const { return running_; }  // by rank, with those that leave
  // The invariants of DESIGN.md, section 3; aborts the process on a violation. O(blocks + sequences).
  void CheckInvariants() const;

 private:
  struct StepBudget {
    int tokens = 0;
    int scores = 0;  // prompt tokens to score
  };
  struct Chunk {
    Sequence* sequence = nullptr;
    int num_tokens = 0;
    int num_scores = 0;
    bool samples = false;
  };
  struct Prompt {
    Sequence* sequence = nullptr;
    double weight = 0;       // of its part of the step
    double need = 0;         // for its weight, in tokens at position 0
    bool is_first = false;   // no other prompt's tenant was served less
    bool gives_way = false;  // to somebody who decodes, or for whom room is made
  };
  // Whom room is being made for; it waits in the queue, and may be gone by now.
  struct Newcomer {
    Priority priority = Priority::kNormal;
    double served = 0;  // its tenant
  };
  // A newcomer's tenant, and those of the sequences that run: by what they were served, and what they run for their
  // weights, here and elsewhere.
  struct Compared {
    int num_served_less = 0;
    int num_served_more = 0;
    double rows = 0;  // each squared, so that a row that changes hands shows
    double own_rows = 0;
    bool operator==(const Compared&) const = default;
  };
  struct StepInFlight {
    int64_t step = 0;
    size_t num_results = 0;
    PromptWork prompts;  // of sequences that need more than one
    bool others_decode = false;
    bool disturbs = false;  // has prompts in it that give way to somebody who decodes
    std::vector<Chunk> chunks;
  };
  // scheduler.cc: a step.
  void DropEnded();
  void GrowRunning(StepBudget& budget);
  void GrowDecoding(StepBudget& budget);
  void TakeThoseThatWaitedLongest(size_t count);
  void GrowOne(Sequence& sequence, StepBudget& budget);
  bool ReserveBlocks(Sequence& sequence, int num_tokens);
  const Batch& BuildBatch();
  void AppendRow(const Chunk& chunk);
  void StartSlot(Sequence& sequence);
  void TellStart(Sequence& sequence);
  // prompts.cc: its prompts.
  void GrowPrompts(StepBudget& budget);
  void FindPrompts();
  void RankPrompts();
  bool MayDisturb() const;
  bool ListensToOthers() const;
  // commit.cc: its results.
  void Pace(const StepInFlight& step, absl::Duration took);
  bool CommitChunk(const Chunk& chunk, absl::Span<const SampledToken> tokens);
  void ObserveDisturbance(const StepInFlight& step, absl::Duration took);
  void CommitScore(Sequence& sequence, const SampledToken& token);
  void CommitToken(Sequence& sequence, const SampledToken& token);
  void Tell(const Sequence& sequence, decltype(Event::what) what);
  void Finish(Sequence& sequence, FinishEvent event);
  void Preempt(Sequence& sequence, PreemptionReason reason);
  void SweepLeaving();

  // admission.cc: who may start.
  bool WaitsForPrefix(const Request& request) const;
  bool HasSuspect() const;
  bool StepIsFull(const Request& newcomer) const;
  bool IsKnownMisfit(const Request& request, const Compared& compared, bool may_preempt) const;
  Compared Compare(const Request& request) const;
  int NumNeededBlocks(const Request& request) const;
  bool MakeRoom(const Request& request, bool may_preempt);
  int NumFreeRows() const;
  bool HasRoom(int num_blocks) const;
  std::optional<std::vector<Victim>> VictimsFor(const Request& request, int num_blocks) const;
  void TakeUpPrefix(Sequence& sequence);
  void RegisterBlocks(Sequence& sequence);
  void ForgetComputing(const Sequence& sequence);

  absl::Span<const int32_t> BlockTokens(absl::Span<const int32_t> tokens, int block) const {
    const auto size = static_cast<size_t>(limits_.block_size);
    return tokens.subspan(static_cast<size_t>(block) * size, size);
  }
  int NumBlocks(int num_tokens) const { return (num_tokens + limits_.block_size - 1) / limits_.block_size; }

  const EngineLimits limits_;
  const SchedulerOptions options_;
  const Clock& clock_;
  KvBlockPool pool_;
  PrefillPacer pacer_;
  RowPacer row_pacer_;
  int max_running_;  // what the row pacer says, once those have ended that were more
  std::vector<int32_t> free_slots_;
  std::vector<std::unique_ptr<Sequence>> running_;   // by rank
  std::vector<std::unique_ptr<Sequence>> finished_;  // until their events are told
  std::vector<std::unique_ptr<Request>> preempted_;  // until somebody takes them
  std::vector<StepInFlight> in_flight_;              // oldest first; up to two a stage
  std::vector<Event> events_;
  // The prompt's blocks that running sequences compute just now, and will register.
  absl::flat_hash_map<PrefixKey, const Sequence*> computing_;
  bool short_of_blocks_ = false;  // the last step could not grow everybody: nobody starts before one that can
  // Requests that did not fit, and how their tenants stood beside the others then: until somebody leaves, more may run,
  // or that changes, they need no second look.
  struct Misfit {
    Compared compared;
    bool could_preempt = false;  // and still did not fit
  };
  absl::flat_hash_map<int64_t, Misfit> misfits_;  // by request
  std::optional<Newcomer> room_for_;
  int64_t next_step_ = 0;
  int num_with_prompts_ = 0;    // steps, since one in which only tokens were drawn
  absl::Duration disturbance_;  // what prompts that give way took beyond their share of the time
  Stats stats_;

  // Kept for their memory: a step allocates nothing.
  Batch batch_;
  StepInFlight building_;
  std::vector<std::vector<Chunk>> spare_chunks_;
  std::vector<Sequence*> decoding_;
  std::vector<int64_t> last_steps_;
  std::vector<Prompt> prompts_;
};

}  // namespace weft
