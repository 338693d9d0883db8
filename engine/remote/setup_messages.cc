#include "engine/remote/setup_messages.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/sha256.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr int kMaxSize = 1024;

bool IsSize(int64_t value, int64_t most) { return value >= 1 && value <= most; }

}  // namespace

void WriteSetup(const EngineSetup& setup, v1::Assignment& message) {
  // A worker has the directory it was started in, not the server's.
  message.set_model_dir(std::filesystem::absolute(setup.model_dir.path).lexically_normal().string());
  if (setup.model_dir.manifest != nullptr) {
    message.set_manifest_file(setup.model_dir.manifest->file());
    message.set_manifest(setup.model_dir.manifest->text());
  }
  message.set_load_format(static_cast<int32_t>(setup.weights.format));
  if (setup.weights.dtype.has_value()) message.set_weight_dtype(static_cast<int32_t>(*setup.weights.dtype));
  message.set_dummy_seed(setup.weights.dummy_seed);
  message.set_tensor_size(setup.parallel.tensor);
  message.set_pipeline_size(setup.parallel.pipeline);
  message.set_expert_size(setup.parallel.expert);
  message.mutable_pipeline_layers()->Add(setup.parallel.layers.begin(), setup.parallel.layers.end());
  message.set_max_model_len(setup.max_model_len);
  message.set_max_num_seqs(setup.max_num_seqs);
  message.set_max_num_batched_tokens(setup.max_num_batched_tokens);
  message.set_block_size(setup.block_size);
  message.set_kv_cache_bytes(setup.kv_cache_bytes);
  message.set_device_kind(static_cast<int32_t>(setup.device.kind));
  message.set_activation_dtype(static_cast<int32_t>(setup.device.activations));
  message.set_batch_invariant(setup.device.batch_invariant);
}

absl::StatusOr<EngineSetup> ReadSetup(const v1::Assignment& message) {
  constexpr int64_t kMaxCount = int64_t{1} << 30;
  const bool sizes_ok = IsSize(message.tensor_size(), kMaxSize) && IsSize(message.pipeline_size(), kMaxSize) &&
                        IsSize(message.expert_size(), kMaxSize) && message.pipeline_layers_size() <= kMaxSize;
  const bool limits_ok = IsSize(message.max_model_len(), kMaxCount) && IsSize(message.max_num_seqs(), kMaxCount) &&
                         IsSize(message.max_num_batched_tokens(), kMaxCount) &&
                         IsSize(message.block_size(), kMaxCount) && message.kv_cache_bytes() > 0;
  const bool dtype_ok = !message.has_weight_dtype() || IsDType(message.weight_dtype());
  const bool format_ok = message.load_format() >= 0 && message.load_format() <= static_cast<int>(LoadFormat::kDummy);
  const bool device_ok = message.device_kind() >= 0 && message.device_kind() <= static_cast<int>(DeviceKind::kCuda) &&
                         IsDType(message.activation_dtype());
  if (!sizes_ok || !limits_ok || !dtype_ok || !format_ok || !device_ok) {
    return absl::InvalidArgumentError("the server's assignment has a number out of range");
  }
  EngineSetup setup{.model_dir = ModelDir(message.model_dir()),
                    .weights = {.format = static_cast<LoadFormat>(message.load_format()),
                                .dtype = std::nullopt,
                                .dummy_seed = message.dummy_seed(),
                                .observer = {}},
                    .device = {.kind = static_cast<DeviceKind>(message.device_kind()),
                               .activations = static_cast<DType>(message.activation_dtype()),
                               .batch_invariant = message.batch_invariant()},
                    .parallel = {.tensor = message.tensor_size(),
                                 .pipeline = message.pipeline_size(),
                                 .expert = message.expert_size(),
                                 .layers = {message.pipeline_layers().begin(), message.pipeline_layers().end()}},
                    .max_model_len = message.max_model_len(),
                    .max_num_seqs = message.max_num_seqs(),
                    .max_num_batched_tokens = message.max_num_batched_tokens(),
                    .block_size = message.block_size(),
                    .kv_cache_bytes = message.kv_cache_bytes()};
  if (!message.manifest_file().empty()) {
    ASSIGN_OR_RETURN(ModelManifest manifest, ModelManifest::Parse(message.manifest_file(), message.manifest()));
    setup.model_dir.manifest = std::make_shared<const ModelManifest>(std::move(manifest));
  }
  if (message.has_weight_dtype()) setup.weights.dtype = static_cast<DType>(message.weight_dtype());
  return setup;
}

absl::StatusOr<std::string> ConfigDigest(const std::string& model_dir) {
  std::ifstream file(absl::StrCat(model_dir, "/config.json"), std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("model: '", model_dir, "' has no config.json"));
  return Sha256Hex(std::string(std::istreambuf_iterator<char>(file), {}));
}

void WriteDigests(absl::Span<const TensorDigest> digests, v1::RankLoaded& message) {
  for (const TensorDigest& digest : digests) {
    v1::TensorDigest& to = *message.add_digests();
    to.set_name(digest.name);
    to.set_digest(digest.digest.data(), digest.digest.size());
  }
}

std::vector<TensorDigest> ReadDigests(const v1::RankLoaded& message) {
  std::vector<TensorDigest> digests;
  for (const v1::TensorDigest& from : message.digests()) {
    TensorDigest& digest = digests.emplace_back();
    digest.name = from.name();
    std::copy_n(from.digest().begin(), std::min(from.digest().size(), digest.digest.size()), digest.digest.begin());
  }
  return digests;
}

void WritePlan(const ParallelPlan& plan, v1::RankPlace& message) {
  message.set_rank(plan.stage * plan.tp_size + plan.tp_rank);
  message.set_first_layer(plan.layers.begin);
  message.set_num_layers(plan.layers.count);
}

absl::Status CheckPlan(const v1::RankPlace& message, const std::vector<ParallelPlan>& plans) {
  const int rank = message.rank();
  if (rank < 0 || static_cast<size_t>(rank) >= plans.size()) {
    return absl::FailedPreconditionError(absl::StrCat("plan: rank ", rank, " of ", plans.size()));
  }
  const Range& layers = plans[static_cast<size_t>(rank)].layers;
  if (layers.begin == message.first_layer() && layers.count == message.num_layers()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("plan: rank ", rank, " has layers ", layers.begin, " .. ", layers.end() - 1, " here, and ",
                   message.first_layer(), " .. ", message.first_layer() + message.num_layers() - 1, " at the server"));
}

}  // namespace weft
