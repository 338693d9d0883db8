// A group of devices on one host that see each other's memory: sums are made by the devices, without the host.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "kernels/communicator.h"
#include "kernels/cpu/op_recorder.h"
#include "kernels/cuda/all_reduce.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/staged_communicator.h"

namespace weft::cuda {

// AllReduceSum is a kernel on each device, where all ranks are on one host and see each other's memory: ranks that are
// threads of one process, also on one device; or processes, whose devices are linked. Everything else, and everything
// where they don't, goes through the host. The ranks meet in the first AllReduceSum, which the largest step has.
class PeerCommunicator final : public Communicator {
 public:
  // `host` is of the same group; `backend` outlives this.
  PeerCommunicator(std::unique_ptr<Communicator> host, CudaBackend& backend);
  ~PeerCommunicator() override;

  int rank() const override { return staged_.rank(); }
  int size() const override { return staged_.size(); }
  void AllReduceSum(Tensor x) override;
  void AllGather(Tensor x, Tensor out) override { staged_.AllGather(x, out); }
  void Broadcast(Tensor x, int root) override { staged_.Broadcast(x, root); }
  void Send(Tensor x, int peer) override { staged_.Send(x, peer); }
  void Recv(Tensor x, int peer) override { staged_.Recv(x, peer); }
  void Abort(absl::Status status) override;
  absl::Status status() const override;
  CommStats stats() const override;
  std::optional<CommWait> waiting() const override { return staged_.waiting(); }
  bool CanReplay() const override { return are_peers_; }

 private:
  struct Introduction;
  void Meet();
  Introduction Introduce();
  bool See(const Introduction& peer, int rank);
  bool Fits(const Tensor& x) const;

  StagedCommunicator staged_;
  CudaBackend* const backend_;
  cpu::OpRecorder recorder_;
  bool have_met_ = false;
  bool are_peers_ = false;
  Buffer own_, num_meetings_;
  Buffer is_over_;                         // on the host
  std::array<void*, kMaxPeers> opened_{};  // of other processes
  AllReduceArgs args_;
};

}  // namespace weft::cuda
