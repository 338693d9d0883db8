// PIPELINE PARALLELISM: what stages pass on, and the only Send and Recv.
//
// Each stage has some of the layers. Activations go from stage to stage; tokens that the last stage draws go to the
// first, so that a step whose rows begin with them need not wait for the host. A stage works through its batches in
// their order and is ahead of the next one by as much as Send allows; so all stages are busy while several batches,
// of different sequences, are under way.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/parallel_plan.h"
#include "kernels/communicator.h"
#include "kernels/tensor.h"

namespace weft {

// One rank's links to those of the same tp_rank in the other stages. Owned by a worker, used by its thread only.
class PipelineStage {
 public:
  // `stages` is null where there is one only; it outlives this.
  PipelineStage(const ParallelPlan& plan, int num_slots, Communicator* stages)
      : plan_(plan), stages_(stages), last_drawn_(static_cast<size_t>(num_slots), 0) {}

  bool IsFirst() const { return plan_.IsFirstStage(); }
  bool IsLast() const { return plan_.IsLastStage(); }
  bool IsOnly() const { return IsFirst() && IsLast(); }

  // hidden: [T, H]
  void ReceiveHidden(Tensor hidden) { stages_->Recv(hidden, plan_.stage - 1); }
  void SendHidden(Tensor hidden) { stages_->Send(hidden, plan_.stage + 1); }

  // The last of several stages: what a step drew.
  void PassOn(absl::Span<const SampledToken> tokens);
  // The first of several stages: each kLastSampled in token_ids becomes the token last drawn in its row's slot; waits
  // for it.
  void ResolveTokens(Batch& batch);

 private:
  // Slots of the tokens that a step draws, in their order.
  static std::vector<int32_t> DrawnSlots(const Batch& batch);
  bool IsDue(int32_t slot) const;
  void ReceiveOldest();

  ParallelPlan plan_;
  Communicator* stages_;
  std::vector<int32_t> last_drawn_;             // by slot
  std::deque<std::vector<int32_t>> due_slots_;  // of steps whose tokens have not come yet, oldest first
};

}  // namespace weft
