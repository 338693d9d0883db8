// Frames to and from one peer, in order, over Gloo's TCP transport. Only gloo_*.cc include this: it needs Gloo.
//
// Gloo moves a message when its receiver has posted a buffer for it, and ends the process when that buffer is too
// small. So each side keeps num_frames buffers of one size posted, whatever the op: a small op is one message, an op of
// any size can be checked before its bytes are used, and a sender is ahead by its peer's free buffers and its own.
#pragma once

#include <gloo/transport/context.h>
#include <gloo/transport/unbound_buffer.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "kernels/cpu/collective.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// Waits for Gloo's buffers, and ends the waits from any thread. Shared by the links of one rank.
//
// When a connection closes, Gloo forgets to tell a buffer that it is in the middle of receiving, or has queued to send.
// So a thread here looks now and then whether a wait goes on, and if so has it look at its connection.
class GlooWaiter {
 public:
  explicit GlooWaiter(absl::Duration timeout);
  ~GlooWaiter();
  GlooWaiter(const GlooWaiter&) = delete;
  GlooWaiter& operator=(const GlooWaiter&) = delete;

  // Waits for `buffer` to be received into or sent. `probe` is posted to receive what its peer never sends: it fails
  // when the connection closes. Errors: those of Abort; DeadlineExceeded; Unavailable when the connection is gone. One
  // thread waits at a time.
  enum class For { kReceived, kSent };
  absl::Status Await(gloo::transport::UnboundBuffer& buffer, For what, gloo::transport::UnboundBuffer& probe);
  // Ends the wait there is and all to come. The first status stays.
  void Abort(absl::Status status);
  absl::Status status() const;

 private:
  enum class Outcome { kDone, kNudged, kFailed };
  struct Result {
    Outcome outcome;
    std::string error;  // with kFailed
  };
  static Result WaitOnce(gloo::transport::UnboundBuffer& buffer, For what, absl::Duration timeout);
  void NudgeNowAndThen();
  void Nudge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration timeout_;
  mutable absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  gloo::transport::UnboundBuffer* awaited_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int64_t num_waits_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Notification stopping_;
  std::thread nudger_;
};

struct GlooFrame {
  enum Kind : uint32_t { kData, kAbort };
  Kind kind = kData;
  uint32_t op = 0;             // of CommOp, or with kAbort an absl::StatusCode
  int32_t root = 0;            // of Broadcast
  uint32_t payload_bytes = 0;  // of this frame: a share of the op's bytes, or the words of an abort
  uint64_t op_bytes = 0;       // of the sender's x

  Announcement announcement() const { return {static_cast<CommOp>(op), root, op_bytes}; }
};

class GlooLink {
 public:
  struct Options {
    int peer = 0;
    uint64_t tag = 0;        // of this link among those to its peer; it uses tag + 1 too
    size_t frame_bytes = 0;  // payload
    size_t num_frames = 0;   // posted by each side
  };

  // A link over a connected pair of `context`; `waiter` outlives it. Throws Gloo's exceptions.
  GlooLink(const std::shared_ptr<gloo::transport::Context>& context, GlooWaiter& waiter, const Options& options);

  // Sends a copy; waits while num_frames of its frames have not left. Errors: see GlooWaiter.
  absl::Status Send(GlooFrame frame, const void* payload);
  // The next frame, valid until Release.
  struct Received {
    GlooFrame frame;
    const char* payload = nullptr;  // [frame.payload_bytes]
  };
  absl::StatusOr<Received> Receive();
  // Gives the buffer of the oldest frame back to the peer.
  void Release();
  // Waits until everything that was sent has left.
  absl::Status Flush();
  // Leaves word of an error, if there is room for it at once.
  void SendAbort(const absl::Status& status);
  // The word that the peer has left in a link whose connection is gone; OK if none.
  absl::Status FindAbort();

 private:
  struct Slot {
    std::unique_ptr<gloo::transport::UnboundBuffer> buffer;
    char* data = nullptr;  // GlooFrame, then payload
    bool pending = false;  // receiving: it is posted; sending: it may not have left
  };
  Slot MakeSlot(gloo::transport::Context& context, char* data) const;
  absl::Status Await(Slot& slot, GlooWaiter::For what);

  GlooWaiter& waiter_;
  const Options options_;
  Buffer memory_;
  std::vector<Slot> sending_, receiving_;
  Slot abort_, probe_;
  uint64_t num_sent_ = 0;
  uint64_t num_received_ = 0;
  uint64_t num_released_ = 0;
};

// The error that a frame of kind kAbort brings.
absl::Status AbortOf(const GlooLink::Received& received);

}  // namespace weft::cpu
