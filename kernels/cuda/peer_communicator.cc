#include "kernels/cuda/peer_communicator.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace weft::cuda {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(60);

PeerMemory PeerMemoryAt(void* memory) {
  char* const base = static_cast<char*>(memory);
  return {base, base + 2 * kAllReduceBytes, reinterpret_cast<uint32_t*>(base + 3 * kAllReduceBytes)};
}

// 36 characters, another on each host and after each start of it.
void ReadBootId(char (&id)[40]) {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  file.read(id, 36);
}

}  // namespace

// What a rank tells the others, byte by byte.
struct PeerCommunicator::Introduction {
  char boot_id[40] = {};
  int64_t process = 0;
  void* memory = nullptr;  // null: there is none
  int32_t device = 0;
  int32_t has_handle = 0;
  cudaIpcMemHandle_t handle{};
};

PeerCommunicator::PeerCommunicator(std::unique_ptr<Communicator> host, CudaBackend& backend)
    : staged_(std::move(host), backend), backend_(&backend) {
  absl::StatusOr<Buffer> is_over = backend.AllocateHost(sizeof(uint32_t));
  if (is_over.ok()) is_over_ = *std::move(is_over);
}

PeerCommunicator::~PeerCommunicator() {
  (void)backend_->Synchronize();
  for (void* const memory : opened_) {
    if (memory != nullptr) cudaIpcCloseMemHandle(memory);
  }
}

PeerCommunicator::Introduction PeerCommunicator::Introduce() {
  Introduction own;
  ReadBootId(own.boot_id);
  own.process = getpid();
  own.device = backend_->device();
  absl::StatusOr<Buffer> memory = backend_->Allocate(kPeerMemoryBytes);
  absl::StatusOr<Buffer> meetings = backend_->Allocate(kAllReduceBlocks * sizeof(uint32_t));
  const bool is_ready = memory.ok() && meetings.ok() && backend_->Synchronize().ok() && !is_over_.empty();
  if (!is_ready || size() > kMaxPeers) return own;
  own_ = *std::move(memory);
  num_meetings_ = *std::move(meetings);
  own.memory = own_.data();
  own.has_handle = cudaIpcGetMemHandle(&own.handle, own.memory) == cudaSuccess ? 1 : 0;
  return own;
}

// Whether this rank can write to that one's memory.
bool PeerCommunicator::See(const Introduction& peer, int rank) {
  Introduction own;
  ReadBootId(own.boot_id);
  if (peer.memory == nullptr || std::memcmp(peer.boot_id, own.boot_id, sizeof own.boot_id) != 0) return false;
  auto& memory = args_.ranks[rank];
  if (peer.process == getpid()) {
    memory = PeerMemoryAt(peer.memory);
    if (peer.device == backend_->device()) return true;
    int can_access = 0;
    if (cudaDeviceCanAccessPeer(&can_access, backend_->device(), peer.device) != cudaSuccess || can_access == 0)
      return false;
    const cudaError_t error = cudaDeviceEnablePeerAccess(peer.device, 0);
    return error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled;
  }
  void*& opened = opened_[static_cast<size_t>(rank)];
  if (peer.has_handle == 0 ||
      cudaIpcOpenMemHandle(&opened, peer.handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess) {
    opened = nullptr;
    return false;
  }
  memory = PeerMemoryAt(opened);
  return true;
}

// All ranks come to the same end: each sees all others, or all go through the host.
void PeerCommunicator::Meet() {
  have_met_ = true;
  Introduction own = Introduce();
  std::vector<Introduction> all(static_cast<size_t>(size()));
  const auto bytes_of = [](auto* values, int64_t rows, size_t bytes) {
    return DenseTensor(values, DType::kI8, rows, static_cast<int64_t>(bytes));
  };
  staged_.AllGather(bytes_of(&own, 1, sizeof own), bytes_of(all.data(), size(), sizeof own));
  if (!status().ok()) return;
  char sees_all = 1;
  for (int rank = 0; rank < size(); ++rank) sees_all &= See(all[static_cast<size_t>(rank)], rank) ? 1 : 0;
  std::vector<char> seeing(static_cast<size_t>(size()));
  staged_.AllGather(bytes_of(&sees_all, 1, 1), bytes_of(seeing.data(), size(), 1));
  are_peers_ = status().ok() && std::all_of(seeing.begin(), seeing.end(), [](char sees) { return sees == 1; });
  args_.rank = rank();
  args_.size = size();
  args_.num_meetings = num_meetings_.As<uint32_t>();
  args_.is_over = is_over_.As<uint32_t>();
  args_.timeout_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(kTimeout));
}

bool PeerCommunicator::Fits(const Tensor& x) const {
  const auto row_bytes = static_cast<size_t>(x.cols) * DTypeBytes(x.dtype);
  return are_peers_ && x.dtype != DType::kI8 && x.cols % 4 == 0 && row_bytes <= kAllReduceBytes;
}

void PeerCommunicator::AllReduceSum(Tensor x) {
  if (!have_met_) Meet();
  if (!Fits(x)) return staged_.AllReduceSum(x);
  if (!status().ok() || x.rows == 0) return;
  const size_t row_bytes = static_cast<size_t>(x.cols) * DTypeBytes(x.dtype);
  const cpu::OpRecorder::Op op(recorder_, CommOp::kAllReduceSum, static_cast<size_t>(x.rows) * row_bytes);
  const auto at_once = static_cast<int64_t>(kAllReduceBytes / std::max<size_t>(row_bytes, 1));
  for (int64_t begin = 0; begin < x.rows; begin += at_once) {
    backend_->AllReduce(x.Rows(begin, std::min(at_once, x.rows - begin)), args_);
  }
}

void PeerCommunicator::Abort(absl::Status status) {
  staged_.Abort(std::move(status));
  if (!is_over_.empty()) std::atomic_ref<uint32_t>(*is_over_.As<uint32_t>()).store(1);
}

// A kernel that has waited too long says so in is_over_.
absl::Status PeerCommunicator::status() const {
  absl::Status status = staged_.status();
  if (!status.ok() || is_over_.empty() || std::atomic_ref<uint32_t>(*is_over_.As<uint32_t>()).load() == 0)
    return status;
  return absl::DeadlineExceededError(
      absl::StrCat("AllReduceSum: another rank has not come for ", absl::FormatDuration(kTimeout)));
}

CommStats PeerCommunicator::stats() const {
  CommStats stats = staged_.stats();
  const CommStats own = recorder_.stats();
  for (size_t i = 0; i < kNumCommOps; ++i) {
    stats.ops[i].calls += own.ops[i].calls;
    stats.ops[i].bytes += own.ops[i].bytes;
    stats.ops[i].total += own.ops[i].total;
  }
  return stats;
}

}  // namespace weft::cuda
