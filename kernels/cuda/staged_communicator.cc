#include "kernels/cuda/staged_communicator.h"

namespace weft::cuda {
namespace {

bool IsOnHost(const Tensor& x) { return x.dtype == DType::kI8; }
size_t BytesOf(const Tensor& x) { return static_cast<size_t>(x.rows * x.cols) * DTypeBytes(x.dtype); }

}  // namespace

// As large as x, in pinned memory that grows with the largest step.
Tensor StagedCommunicator::OnHost(Tensor x, Buffer& buffer) {
  if (buffer.bytes() < BytesOf(x)) {
    absl::StatusOr<Buffer> larger = backend_->AllocateHost(BytesOf(x));
    if (!larger.ok()) host_->Abort(larger.status());
    if (larger.ok()) buffer = *std::move(larger);
  }
  return DenseTensor(buffer.data(), x.dtype, x.rows, x.cols);
}

Tensor StagedCommunicator::FromDevice(Tensor x, Buffer& buffer) {
  const Tensor on_host = OnHost(x, buffer);
  if (!host_->status().ok()) return on_host;
  backend_->CopyToHost(on_host.data, x.data, BytesOf(x));
  if (absl::Status status = backend_->Synchronize(); !status.ok()) host_->Abort(std::move(status));
  return on_host;
}

void StagedCommunicator::ToDevice(Tensor on_host, Tensor x) {
  if (host_->status().ok()) backend_->CopyFromHost(x.data, on_host.data, BytesOf(x));
}

void StagedCommunicator::AllReduceSum(Tensor x) {
  Tensor floats = x;
  if (x.dtype != DType::kF32) {
    floats = DenseTensor(nullptr, DType::kF32, x.rows, x.cols);
    if (!backend_->Grow(floats_, BytesOf(floats), "AllReduceSum", x)) return host_->Abort(backend_->Synchronize());
    floats.data = floats_.data();
    backend_->Cast(x, floats);
  }
  const Tensor on_host = FromDevice(floats, pinned_);
  host_->AllReduceSum(on_host);
  ToDevice(on_host, floats);
  if (x.dtype != DType::kF32) backend_->Cast(floats, x);
}

void StagedCommunicator::AllGather(Tensor x, Tensor out) {
  if (IsOnHost(x)) return host_->AllGather(x, out);
  const Tensor own = FromDevice(x, pinned_), all = OnHost(out, more_);
  host_->AllGather(own, all);
  ToDevice(all, out);
}

void StagedCommunicator::Broadcast(Tensor x, int root) {
  if (IsOnHost(x)) return host_->Broadcast(x, root);
  const Tensor on_host = FromDevice(x, pinned_);
  host_->Broadcast(on_host, root);
  ToDevice(on_host, x);
}

void StagedCommunicator::Send(Tensor x, int peer) { host_->Send(IsOnHost(x) ? x : FromDevice(x, pinned_), peer); }

void StagedCommunicator::Recv(Tensor x, int peer) {
  if (IsOnHost(x)) return host_->Recv(x, peer);
  // A Send's copy from this memory is over; a Recv's to the device may be under way.
  if (absl::Status status = backend_->Synchronize(); !status.ok()) return host_->Abort(std::move(status));
  const Tensor on_host = OnHost(x, more_);
  host_->Recv(on_host, peer);
  ToDevice(on_host, x);
}

}  // namespace weft::cuda
