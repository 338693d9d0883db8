// What a rank's weights are, in 128 bits each: so that ranks which should hold the same can find out whether they do.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/gmac.h"
#include "engine/tensor_list.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace weft {

struct TensorDigest {
  std::string name;  // of a norm, or of a linear's matrices: "model.layers.0.mlp.gate_proj.weight+up_proj.weight"
  GmacTag digest{};  // of what the device holds after sharding and quantising

  bool operator==(const TensorDigest&) const = default;
};

// Of a weight as the backend stores it: dtype, shape, values, scales and bias. Equal for all CPUs, whose layout doesn't
// depend on the instruction set (kernels/cpu/panel.h); two kinds of device may differ. Copies the weight to the host a
// MiB at a time. Error: the device's own. The key is public: this finds accidents, a manifest finds intent.
absl::StatusOr<TensorDigest> DigestWeight(const LinearSpec& spec, const Weight& weight, Backend& backend);
absl::StatusOr<TensorDigest> DigestNorm(const TensorSpec& spec, const Buffer& norm, Backend& backend);

// All of a rank's in one, as 32 hex digits.
std::string CombinedDigest(absl::Span<const TensorDigest> digests);

// Whether two ranks of one plan, in two replicas or processes, hold the same. DataLoss "weights: integrity_error: ..."
// that names the first tensor which differs, or which only one of them has.
absl::Status CompareDigests(absl::Span<const TensorDigest> a, absl::Span<const TensorDigest> b);

}  // namespace weft
