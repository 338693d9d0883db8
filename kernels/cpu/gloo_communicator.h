// The communicator of ranks on different hosts: TCP through Gloo, sums in rank order by our own hands.
//
// Gloo gives connections, a thread that polls them, and messages; its own all-reduce adds in whatever order its
// algorithm has. Connections are neither encrypted nor authenticated: for a network of one's own.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "kernels/communicator.h"
#include "kernels/cpu/collective.h"
#include "kernels/cpu/op_recorder.h"
#include "kernels/rendezvous.h"

namespace gloo::transport {
class Context;
class Device;
}  // namespace gloo::transport

namespace weft::cpu {

class GlooLink;
class GlooWaiter;
struct GlooFrame;

struct GlooOptions {
  int rank = 0;
  int size = 1;                               // 1 .. kMaxRanks
  std::string interface;                      // to listen on and connect from, by name, as "eth0"; or
  std::string hostname;                       // by its address or name; one of the two
  absl::Duration timeout = absl::Minutes(1);  // of connecting, and of each wait for a peer
  size_t frame_bytes = size_t{128} << 10;  // ops on larger tensors take several; 1 KB .. 64 MB, a multiple of 64, and
  int num_frames = 8;                      // the same on all ranks: that Send may be ahead, for each peer; 4 .. 1024
};

// Ops are for one thread. Send is ahead of its Recv by num_frames messages of up to frame_bytes each at least, and by
// twice that where the peer has read all before. A peer that has closed its connection, or died with its host still up,
// ends an op that needs it with Unavailable (or with the peer's own words, where it left some); a peer that is silent,
// with DeadlineExceeded. The error goes on from rank to rank as they talk to each other.
class GlooCommunicator final : public Communicator {
 public:
  // Meets all other ranks of `store` and connects to each. Errors: InvalidArgument for options out of range, a name
  // that can't be listened on; DeadlineExceeded for a rank that doesn't come; Unavailable for one that can't be
  // reached.
  static absl::StatusOr<std::unique_ptr<GlooCommunicator>> Connect(const GlooOptions& options, Rendezvous& store);
  // Waits until what was sent has left, at most the timeout.
  ~GlooCommunicator() override;

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  void AllReduceSum(Tensor x) override;
  void AllGather(Tensor x, Tensor out) override;
  void Broadcast(Tensor x, int root) override;
  void Send(Tensor x, int peer) override;
  void Recv(Tensor x, int peer) override;
  void Abort(absl::Status status) override;
  absl::Status status() const override;
  CommStats stats() const override { return recorder_.stats(); }
  // Of peers not heard of, a group op names the one that it waits for just now.
  std::optional<CommWait> waiting() const override { return recorder_.waiting(); }

 private:
  explicit GlooCommunicator(const GlooOptions& options);
  absl::Status Listen();
  absl::Status MeetPeers(Rendezvous& store);
  void Close() ABSL_EXCLUSIVE_LOCKS_REQUIRED(op_mutex_);

  // Runs an op, unless the group has failed; fails the group when the op does.
  void Run(const Announcement& mine, absl::FunctionRef<absl::Status()> op);
  absl::Status SumAlone(const Announcement& mine, float* x, size_t count);
  absl::Status SumSlices(const Announcement& mine, float* x, size_t count);
  absl::StatusOr<std::vector<const float*>> ReceiveParts(const Announcement& mine, const float* own, size_t count);
  absl::Status SendTo(GlooLink& link, int peer, const Announcement& mine, absl::Span<const char> payload);
  absl::Status SendToAll(const Announcement& mine, absl::Span<const char> payload);
  // The payload of the peer's next frame, [bytes]; Release of the link ends it.
  absl::StatusOr<const char*> ReceiveFrom(GlooLink& link, int peer, const Announcement& mine, size_t bytes);
  // ReceiveFrom a link of group_, to `to` and released; null: nothing.
  absl::Status CopyFrom(int peer, const Announcement& mine, char* to, size_t bytes);
  absl::Status Explain(int peer, const absl::Status& status);
  template <typename Visit>  // absl::Status(int peer)
  absl::Status ForEachPeer(Visit visit);

  const GlooOptions options_;
  OpRecorder recorder_;
  const std::unique_ptr<GlooWaiter> waiter_;
  std::shared_ptr<gloo::transport::Device> device_;  // Gloo shares it with its pairs

  absl::Mutex op_mutex_;  // held by whoever is in an op, or closes the links
  // Gloo shares it with its buffers. Null, and no links, once closed.
  std::shared_ptr<gloo::transport::Context> context_ ABSL_GUARDED_BY(op_mutex_);
  // [size], null for oneself: a link for group ops and one for Send and Recv, so that neither waits for the other.
  std::vector<std::unique_ptr<GlooLink>> group_ ABSL_GUARDED_BY(op_mutex_);
  std::vector<std::unique_ptr<GlooLink>> messages_ ABSL_GUARDED_BY(op_mutex_);
};

}  // namespace weft::cpu
