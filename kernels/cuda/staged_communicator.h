// A group of devices whose ranks meet on the host: what they exchange is copied there and back.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "kernels/communicator.h"
#include "kernels/cuda/cuda_backend.h"

namespace weft::cuda {

// Works between any devices on any hosts, and sums as the CPU's ranks do: in F32, in the order of ranks, rounded once
// at the end; equal bits on all ranks. Each op waits for the device, so no step is recorded. Errors of the device end
// the group.
class StagedCommunicator final : public Communicator {
 public:
  // `host` is of the same group; `backend` outlives this.
  StagedCommunicator(std::unique_ptr<Communicator> host, CudaBackend& backend)
      : host_(std::move(host)), backend_(&backend) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  void AllReduceSum(Tensor x) override;
  void AllGather(Tensor x, Tensor out) override;
  void Broadcast(Tensor x, int root) override;
  void Send(Tensor x, int peer) override;
  void Recv(Tensor x, int peer) override;
  void Abort(absl::Status status) override { host_->Abort(std::move(status)); }
  absl::Status status() const override { return host_->status(); }
  CommStats stats() const override { return host_->stats(); }
  std::optional<CommWait> waiting() const override { return host_->waiting(); }

 private:
  Tensor OnHost(Tensor x, Buffer& buffer);
  Tensor FromDevice(Tensor x, Buffer& buffer);
  void ToDevice(Tensor on_host, Tensor x);

  const std::unique_ptr<Communicator> host_;
  CudaBackend* backend_;
  Buffer floats_;         // on the device
  Buffer pinned_, more_;  // on the host
};

}  // namespace weft::cuda
