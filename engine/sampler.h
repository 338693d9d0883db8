// What is remembered of each sequence in its slot, and the drawing of its next token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/batch.h"
#include "engine/tensor_parallel.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace weft {

// Owned by a worker of the last stage, used by its thread only. The ranks of the stage draw the same.
class Sampler {
 public:
  Sampler(int num_slots, int32_t vocab_size, const TensorParallel& tensor_parallel)
      : vocab_size_(vocab_size), tensor_parallel_(tensor_parallel), slots_(static_cast<size_t>(num_slots)) {}

  // Draws for rows of logits that mean nothing, by rules that need as much memory as any: what a backend allocates for
  // that it does now. logits: F32 [R, vocab of the rank], destroyed.
  void WarmUp(Tensor logits, int64_t max_model_len);

  // Sequences take their slots.
  void BeginStep(const Batch& batch);

  // What a step draws, from Draw to Take; where it lies doesn't change.
  class Draws;

  // One token for each entry of batch.sampling; drawn ones are put into last_drawn, by slot. Those before must have
  // been taken where any of them needs that. logits: F32 [num samples, vocab of the rank], destroyed.
  std::unique_ptr<Draws> Draw(const Batch& batch, Tensor logits, int32_t* last_drawn);
  // Once the backend has done it.
  std::vector<SampledToken> Take(const Draws& draws);

 private:
  struct Slot {
    SamplingParams params;
    int32_t num_prompt_tokens = 0;
    // Occurrences of tokens, kept only when a penalty asks for them.
    std::vector<TokenCount> counts;
    absl::flat_hash_map<int32_t, size_t> count_of;  // token -> index into counts
    std::vector<LogitBias> biases;
    size_t num_lasting_biases = 0;  // the rest holds the tokens banned before min_tokens
  };

  static void Start(const SlotStart& start, Slot& slot);
  static void Count(Slot& slot, int32_t token, bool in_prompt);
  static SampleArgs Args(const Slot& slot, const SamplingRow& row);

  int32_t vocab_size_;
  TensorParallel tensor_parallel_;
  std::vector<Slot> slots_;
};

class Sampler::Draws {
 public:
  // The next step's penalties depend on these tokens: it is drawn when they have been taken.
  bool NeedToBeTaken() const {
    return std::any_of(slots_.begin(), slots_.end(), [](const Slot* slot) { return slot->params.HasPenalties(); });
  }

 private:
  friend class Sampler;
  std::vector<Slot*> slots_;  // of each token
  std::vector<bool> in_prompt_;
  std::vector<SampleResult> results_;
};

}  // namespace weft
