// The paged keys and values of one rank.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_config.h"
#include "engine/parallel_plan.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// One pair of buffers a layer, each [num_blocks, num_kv_heads, block_size, head_dim]. Which sequence holds which block
// is the scheduler's business.
class KvCache {
 public:
  struct Options {
    int num_blocks = 0;  // and one more, which no sequence has: see StepInput
    int block_size = 0;  // tokens
    DType dtype = DType::kF32;
  };

  // The layers and heads that `plan` gives the rank. Errors: ResourceExhausted, naming the bytes.
  static absl::StatusOr<KvCache> Allocate(const ModelConfig& config, const ParallelPlan& plan, const Options& options,
                                          Backend& backend);

  // Bytes of one block over all layers of the rank.
  static int64_t BlockBytes(const ModelConfig& config, const ParallelPlan& plan, int block_size, DType dtype);

  KvView Layer(int layer) const;  // of the rank's, from 0
  int64_t bytes() const;

 private:
  explicit KvCache(const KvView& view) : view_(view) {}

  KvView view_;  // but for the pointers
  std::vector<Buffer> keys_;
  std::vector<Buffer> values_;
};

}  // namespace weft
