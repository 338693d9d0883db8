#include "kernels/cpu/gloo_link.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/memory.h"
#include "kernels/status_macros.h"

namespace weft::cpu {

namespace {

constexpr absl::Duration kNudgeEvery = absl::Milliseconds(100);

}  // namespace

GlooWaiter::GlooWaiter(absl::Duration timeout) : timeout_(timeout), nudger_([this] { NudgeNowAndThen(); }) {}

GlooWaiter::~GlooWaiter() {
  stopping_.Notify();
  nudger_.join();
}

absl::Status GlooWaiter::Await(gloo::transport::UnboundBuffer& buffer, For what,
                               gloo::transport::UnboundBuffer& probe) {
  const absl::Time deadline = absl::Now() + timeout_;
  Result result{Outcome::kNudged, ""};
  while (result.outcome == Outcome::kNudged) {
    {
      const absl::MutexLock lock(&mutex_);
      if (!status_.ok()) return status_;
      awaited_ = &buffer;
      ++num_waits_;
    }
    result = WaitOnce(buffer, what, std::max(deadline - absl::Now(), absl::Milliseconds(1)));
    {
      const absl::MutexLock lock(&mutex_);
      awaited_ = nullptr;
      if (!status_.ok()) return status_;
    }
    if (result.outcome != Outcome::kNudged) break;
    probe.abortWaitRecv();
    const bool open = WaitOnce(probe, For::kReceived, timeout_).outcome == Outcome::kNudged;
    // What was done before the connection closed is there at once; the rest will never be.
    if (!open) result = WaitOnce(buffer, what, absl::Milliseconds(1));
    if (!open && result.outcome != Outcome::kDone) return absl::UnavailableError("the connection was closed");
  }
  if (result.outcome == Outcome::kDone) return absl::OkStatus();
  // Gloo tells a timeout from a closed connection in its words alone.
  if (absl::Now() < deadline) return absl::UnavailableError(result.error);
  return absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(timeout_)));
}

// Gloo closes all connections when this times out.
GlooWaiter::Result GlooWaiter::WaitOnce(gloo::transport::UnboundBuffer& buffer, For what, absl::Duration timeout) {
  try {
    const std::chrono::milliseconds limit = absl::ToChronoMilliseconds(timeout) + std::chrono::milliseconds(1);
    const bool done = what == For::kReceived ? buffer.waitRecv(limit) : buffer.waitSend(limit);
    return {done ? Outcome::kDone : Outcome::kNudged, ""};
  } catch (const std::exception& error) {
    return {Outcome::kFailed, error.what()};
  }
}

void GlooWaiter::NudgeNowAndThen() {
  int64_t seen = -1;
  while (!stopping_.WaitForNotificationWithTimeout(kNudgeEvery)) {
    const absl::MutexLock lock(&mutex_);
    if (awaited_ != nullptr && num_waits_ == seen) Nudge();
    seen = num_waits_;
  }
}

// Ends the wait once, whichever of the two it is; also one that is just about to begin.
void GlooWaiter::Nudge() {
  awaited_->abortWaitRecv();
  awaited_->abortWaitSend();
}

void GlooWaiter::Abort(absl::Status status) {
  CHECK(!status.ok(), "an abort has a reason");
  const absl::MutexLock lock(&mutex_);
  if (status_.ok()) status_ = std::move(status);
  if (awaited_ != nullptr) Nudge();
}

absl::Status GlooWaiter::status() const {
  const absl::MutexLock lock(&mutex_);
  return status_;
}

GlooLink::GlooLink(const std::shared_ptr<gloo::transport::Context>& context, GlooWaiter& waiter, const Options& options)
    : waiter_(waiter), options_(options) {
  const size_t slot_bytes = (sizeof(GlooFrame) + options_.frame_bytes + 63) / 64 * 64;
  absl::StatusOr<Buffer> memory = AllocateMemory((2 * options_.num_frames + 2) * slot_bytes);
  if (!memory.ok()) throw std::bad_alloc();
  memory_ = *std::move(memory);
  char* next = memory_.As<char>();
  const auto make_slot = [&] { return MakeSlot(*context, std::exchange(next, next + slot_bytes)); };
  for (size_t i = 0; i < options_.num_frames; ++i) {
    sending_.push_back(make_slot());
    receiving_.push_back(make_slot());
  }
  abort_ = make_slot();
  probe_ = make_slot();
  probe_.buffer->recv(options_.peer, options_.tag + 1);
  for (Slot& slot : receiving_) {
    slot.buffer->recv(options_.peer, options_.tag);
    slot.pending = true;
  }
}

GlooLink::Slot GlooLink::MakeSlot(gloo::transport::Context& context, char* data) const {
  Slot slot;
  slot.data = data;
  slot.buffer = context.createUnboundBuffer(data, sizeof(GlooFrame) + options_.frame_bytes);
  return slot;
}

absl::Status GlooLink::Await(Slot& slot, GlooWaiter::For what) {
  return waiter_.Await(*slot.buffer, what, *probe_.buffer);
}

absl::Status GlooLink::Send(GlooFrame frame, const void* payload) {
  Slot& slot = sending_[num_sent_++ % sending_.size()];
  if (slot.pending) RETURN_IF_ERROR(Await(slot, GlooWaiter::For::kSent));
  std::memcpy(slot.data, &frame, sizeof(frame));
  CopyBytes(slot.data + sizeof(frame), payload, frame.payload_bytes);
  try {
    slot.buffer->send(options_.peer, options_.tag, 0, sizeof(frame) + frame.payload_bytes);
  } catch (const std::exception& error) {
    return absl::UnavailableError(error.what());
  }
  slot.pending = true;
  return absl::OkStatus();
}

absl::StatusOr<GlooLink::Received> GlooLink::Receive() {
  Slot& slot = receiving_[num_received_ % receiving_.size()];
  if (!slot.pending) return absl::UnavailableError("the connection was closed");
  RETURN_IF_ERROR(Await(slot, GlooWaiter::For::kReceived));
  ++num_received_;
  slot.pending = false;
  Received received;
  std::memcpy(&received.frame, slot.data, sizeof(received.frame));
  received.payload = slot.data + sizeof(received.frame);
  if (received.frame.payload_bytes > options_.frame_bytes) return absl::InternalError("a frame beyond its size");
  return received;
}

void GlooLink::Release() {
  Slot& slot = receiving_[num_released_++ % receiving_.size()];
  try {
    slot.buffer->recv(options_.peer, options_.tag);
    slot.pending = true;
  } catch (const std::exception&) {
    // The peer has gone. That is an error only for an op that still needs it, and Receive will say so.
  }
}

absl::Status GlooLink::Flush() {
  for (Slot& slot : sending_) {
    if (!std::exchange(slot.pending, false)) continue;
    RETURN_IF_ERROR(Await(slot, GlooWaiter::For::kSent));
  }
  return absl::OkStatus();
}

void GlooLink::SendAbort(const absl::Status& status) {
  GlooFrame frame;
  frame.kind = GlooFrame::kAbort;
  frame.op = static_cast<uint32_t>(status.code());
  frame.payload_bytes = static_cast<uint32_t>(std::min(status.message().size(), options_.frame_bytes));
  std::memcpy(abort_.data, &frame, sizeof(frame));
  CopyBytes(abort_.data + sizeof(frame), status.message().data(), frame.payload_bytes);
  try {
    abort_.buffer->send(options_.peer, options_.tag, 0, sizeof(frame) + frame.payload_bytes);
  } catch (const std::exception&) {
    // Then the peer knows already.
  }
}

absl::Status AbortOf(const GlooLink::Received& received) {
  const uint32_t code = received.frame.op;
  const bool known = code >= 1 && code <= 16;
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      absl::string_view(received.payload, received.frame.payload_bytes));
}

absl::Status GlooLink::FindAbort() {
  for (size_t i = 0; i < receiving_.size(); ++i) {
    const absl::StatusOr<Received> received = Receive();
    if (!received.ok()) break;
    if (received->frame.kind == GlooFrame::kAbort) return AbortOf(*received);
  }
  return absl::OkStatus();
}

}  // namespace weft::cpu
