#include "server/device_choice.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace weft {
namespace {

// The rest is for CUDA itself, its libraries and their workspaces, and what the driver can't hand out in one piece.
constexpr double kUsableShare = 0.9;

absl::Status Refuse(absl::string_view why) { return absl::InvalidArgumentError(absl::StrCat("device: ", why)); }

}  // namespace

absl::StatusOr<DeviceChoice> ChooseDevice(const Config& config, const ModelConfig& model, const CudaSupport& cuda) {
  const EngineOptions& engine = config.engine;
  const DeviceKind by_itself = cuda.devices.empty() ? DeviceKind::kCpu : DeviceKind::kCuda;
  DeviceChoice choice;
  choice.device.kind = engine.device.value_or(by_itself);
  choice.device.num_threads = engine.threads;
  const bool has_processes = choice.device.kind == DeviceKind::kCuda || config.workers.num_nodes > 1;
  choice.workers = config.workers.kind.value_or(has_processes ? WorkerKind::kProcesses : WorkerKind::kThreads);
  if (choice.device.kind == DeviceKind::kCpu) return choice;

  if (cuda.built_for.empty()) return Refuse("this binary was built without CUDA (WEFT_CUDA)");
  if (cuda.devices.empty()) return Refuse(absl::StrCat("there is no CUDA device: ", cuda.problem));
  const int num_ranks = engine.replicas * engine.tensor_parallel_size * engine.pipeline_parallel_size;
  const int num_here = num_ranks / config.workers.num_nodes;
  if (choice.workers == WorkerKind::kProcesses && static_cast<size_t>(num_here) > cuda.devices.size()) {
    return Refuse(absl::StrCat(num_here,
                               " ranks on this host (replicas x tensor-parallel-size x pipeline-parallel-size) need a "
                               "CUDA device each, and there are ",
                               cuda.devices.size()));
  }
  const DType of_weights = model.dtype == DType::kF16 ? DType::kF16 : DType::kBF16;
  choice.device.batch_invariant = !engine.fast_linears;
  choice.device.activations = engine.activation_dtype.value_or(of_weights);
  const auto smallest =
      std::min_element(cuda.devices.begin(), cuda.devices.end(),
                       [](const CudaDevice& a, const CudaDevice& b) { return a.memory_bytes < b.memory_bytes; });
  choice.device_memory_bytes = static_cast<int64_t>(kUsableShare * static_cast<double>(smallest->memory_bytes));
  return choice;
}

}  // namespace weft
