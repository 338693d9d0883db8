// The weights of one rank: read from safetensors (or made up), sliced, stored as the backend wants them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/model_dir.h"
#include "engine/moe_weights.h"
#include "engine/parallel_plan.h"
#include "engine/weight_digest.h"
#include "engine/weight_options.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

// Shapes are the rank's: Hq, Hkv, intermediate and vocab count what it has of them.
struct LayerWeights {
  Buffer input_norm;      // float [hidden]
  Weight qkv;             // [(Hq + 2 Hkv) * D, hidden], with bias where the family has one
  Buffer q_norm, k_norm;  // float [D], or empty
  Weight output;          // [hidden, Hq * D]
  Buffer post_norm;       // float [hidden]
  // Of a layer with an MLP; else `moe`.
  Weight gate_up;  // [2 * intermediate, hidden]: gate's rows, then up's
  Weight down;     // [hidden, intermediate]
  std::optional<MoeWeights> moe;
};

struct ModelWeights {
  std::optional<Weight> embedding;   // [vocab, hidden]; of the first stage
  std::vector<LayerWeights> layers;  // of the stage
  Buffer final_norm;                 // float [hidden]; of the last stage
  std::optional<Weight> head;        // [vocab, hidden]; of the last stage; none there: the embedding is tied
  const Weight& output_head() const { return head.has_value() ? *head : *embedding; }

  std::vector<TensorDigest> digests;  // of all of the above, in the order of loading; see CompareDigests
};

// Loads what of each tensor is the rank's, and refuses a directory with one missing, left over, of another shape, or
// of another dtype than the configuration's (norms and biases may be F32, F16 or BF16 in any). Passed over:
// `lm_head.weight` of a model with tied embeddings, and `*.rotary_emb.inv_freq`. Where the directory has a manifest,
// what is loaded is what it says. kDummy makes every matrix up and reads nothing.
//
// Several threads read ahead while the backend converts. Beside what the backend keeps, host memory holds the parts of
// one linear, and of what comes next 256 MiB, or one tensor where that is larger.
//
// Errors: InvalidArgument "FILE: code: what", code words of the bad-input catalogue (M01 to M21): those of
// Checkpoint::Open, and missing_tensor, extra_tensor, wrong_shape, wrong_dtype, nonfinite_weights, integrity_error;
// NotFound when there are no weights; DataLoss for io_error; ResourceExhausted when memory doesn't suffice.
absl::StatusOr<ModelWeights> LoadWeights(const ModelDir& dir, const ModelConfig& config, const ParallelPlan& plan,
                                         const WeightOptions& options, Backend& backend);

// Several ranks', one after the other on one device: the directory is opened, and checked, once.
absl::StatusOr<std::vector<ModelWeights>> LoadRankWeights(const ModelDir& dir, const ModelConfig& config,
                                                          absl::Span<const ParallelPlan> plans,
                                                          const WeightOptions& options, Backend& backend);

}  // namespace weft
