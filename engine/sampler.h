// What is remembered of each sequence in its slot, and the drawing of its next token.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/batch.h"
#include "kernels/backend.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace weft {

// Owned by the worker that has the logits, used by its thread only.
class Sampler {
 public:
  Sampler(int num_slots, Backend& backend) : backend_(&backend), slots_(static_cast<size_t>(num_slots)) {}

  // Sequences take their slots; then each kLastSampled in token_ids becomes the token last drawn in its row's slot.
  void BeginStep(Batch& batch);

  // One token for each entry of batch.sampling. logits: F32 [num samples, vocab], destroyed.
  std::vector<SampledToken> Sample(const Batch& batch, Tensor logits);

 private:
  struct Slot {
    SamplingParams params;
    int32_t num_prompt_tokens = 0;
    int32_t last_sampled = 0;
    // Occurrences of tokens, kept only when a penalty asks for them.
    std::vector<TokenCount> counts;
    absl::flat_hash_map<int32_t, size_t> count_of;  // token -> index into counts
    std::vector<LogitBias> biases;
    size_t num_lasting_biases = 0;  // the rest holds the tokens banned before min_tokens
  };

  static void Start(const SlotStart& start, Slot& slot);
  static void Count(Slot& slot, int32_t token, bool in_prompt);
  static SampleArgs Args(const Slot& slot, const SamplingRow& row);

  Backend* backend_;
  std::vector<Slot> slots_;
};

}  // namespace weft
