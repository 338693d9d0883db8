// Decides what each step computes. There is no prefill phase and no decode phase: computed tokens catch up with known
// tokens, within a budget of tokens and rows a step.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/engine.h"
#include "scheduler/clock.h"
#include "scheduler/kv_block_pool.h"
#include "scheduler/request.h"
#include "scheduler/sequence.h"
#include "scheduler/stats.h"

namespace weft {

// Something a sink must be told. Exactly one of num_cached_tokens, token and finish is set.
struct Event {
  std::shared_ptr<TokenSink> sink;  // shared with the front end's reader
  std::string tenant;
  std::optional<int64_t> num_cached_tokens;  // it starts
  std::optional<SampledToken> token;
  std::optional<FinishEvent> finish;
};

// InvalidArgument when the request could not run even with the engine to itself.
absl::Status CheckFits(int64_t num_prompt_tokens, int64_t max_tokens, const EngineLimits& limits);

// Pure host logic on one engine's sequences and blocks; owned and called by one replica's thread.
//
// Blocks: a sequence gets the blocks of all its known tokens when it is admitted, and one more each time it outgrows
// them. When none is free, the newest running sequence is preempted: it keeps its tokens, drops its blocks and is
// computed anew later. The oldest is never preempted, and every request fits alone, so there is always progress.
//
// Prefixes: a block that is full and computed is registered under a key that names all tokens up to its end, and a
// sequence with the same beginning, in the same scope, takes it up instead of computing it. Of several that begin
// alike, one computes and the others wait for its blocks: n choices of one prompt cost one prompt.
class Scheduler {
 public:
  Scheduler(const EngineLimits& limits, const Clock& clock);

  // True while another request could start at the next step: slots are free, nobody waits for blocks, and those taken
  // on already don't fill a step. Whatever is not taken on yet stays in the fair queue, where order is still open.
  bool WantsMore() const;
  // Requires CheckFits(request).
  void Add(std::unique_ptr<Request> request);
  bool HasWork() const { return !running_.empty() || !waiting_.empty(); }

  // The next step; empty when there is nothing to compute until an earlier one is committed.
  Batch Schedule();
  // Takes the result of the oldest step that Schedule() gave and that has not been committed.
  void Commit(const StepResult& result);
  // The engine died: every sequence ends in `status`.
  void Abort(const absl::Status& status);
  // What happened since the last call, in order.
  std::vector<Event> TakeEvents();

  Stats stats() const;
  // The invariants of DESIGN.md, section 3; aborts the process on a violation. O(blocks + sequences).
  void CheckInvariants() const;

 private:
  struct StepBudget {
    int tokens = 0;
    int scores = 0;          // prompt tokens to score
    bool preempted = false;  // blocks ran out: nobody is admitted in this step
  };
  struct Chunk {
    Sequence* sequence = nullptr;
    int num_tokens = 0;
    int num_scores = 0;
    bool samples = false;
  };
  struct StepInFlight {
    int64_t step = 0;
    std::vector<Chunk> chunks;
  };

  void DropCancelled();
  void GrowRunning(StepBudget& budget);
  void AdmitWaiting(StepBudget& budget);
  Batch BuildBatch();

  bool AdmitOne(Sequence& sequence);
  int NumShareable(const Sequence& sequence) const;
  bool WaitsForPrefix(const Sequence& sequence) const;
  void TakeUpPrefix(Sequence& sequence);
  void RegisterBlocks(Sequence& sequence);
  void ForgetComputing(const Sequence& sequence);
  void DropBlocks(Sequence& sequence);
  absl::Span<const int32_t> TokensOfBlock(const Sequence& sequence, int block) const;

  void GrowOne(Sequence& sequence, StepBudget& budget);
  bool ReserveBlocks(Sequence& sequence, int num_tokens, StepBudget& budget);
  void AppendRow(const Chunk& chunk, Batch& batch);
  void CommitScore(Sequence& sequence, const SampledToken& token);
  void CommitToken(Sequence& sequence, const SampledToken& token);
  void FinishNotFinite(Sequence& sequence);
  void Finish(Sequence& sequence, FinishEvent event);
  void Preempt(Sequence& sequence);
  void SweepLeaving();
  int NumBlocks(int num_tokens) const { return (num_tokens + limits_.block_size - 1) / limits_.block_size; }

  const EngineLimits limits_;
  const Clock& clock_;
  KvBlockPool pool_;
  std::vector<int32_t> free_slots_;
  // Both in order of Request::id, oldest first.
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;
  std::vector<Chunk> chosen_;           // for the step being built
  std::deque<StepInFlight> in_flight_;  // oldest first
  std::vector<Event> events_;
  // The prompt's blocks that running sequences compute just now, and will register.
  absl::flat_hash_map<PrefixKey, const Sequence*> computing_;
  bool out_of_blocks_ = false;  // the oldest that waits did not fit
  int64_t next_step_ = 0;
  Stats stats_;
};

}  // namespace weft
