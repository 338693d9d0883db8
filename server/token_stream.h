// The bridge between the replica's thread, which draws tokens, and the front end, which reads them when it can.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/request.h"
#include "server/metrics.h"

namespace weft {

// Calls a front end's `wake` once when the first token arrives after everything was taken. Shared by a request's reader
// and its streams. Thread-safe.
class StreamWaker {
 public:
  explicit StreamWaker(std::function<void()> wake) : wake_(std::move(wake)) {}

  // Something new lies in a stream.
  void Notify();

  // The reader is about to look into all streams: what comes after this call wakes it again.
  void Arm() { notified_.store(false); }

  // After return `wake` is not running and never called again.
  void Disarm();

 private:
  std::atomic<bool> notified_{false};
  absl::Mutex mutex_;  // held while wake_ runs, which must only post
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
};

// Holds one sequence's tokens between their drawing and their reading: 4 bytes each, at most max_tokens of them, so a
// slow reader costs little and holds up nobody. Where log-probabilities were asked for, it holds these too, and those
// of an echoed prompt. Text is made from them only when they are taken. Also takes the times that the latency metrics
// need.
//
// Shared by the scheduler, which pushes, and a Generation, which takes. Thread-safe.
class TokenStream final : public TokenSink {
 public:
  // `arrival`: of the request. Metrics and clock outlive the stream.
  TokenStream(std::shared_ptr<StreamWaker> waker, absl::Time arrival, bool wants_logprobs, const Clock& clock,
              Metrics& metrics);

  void Start(int64_t num_cached_tokens) override { num_cached_tokens_.store(num_cached_tokens); }
  void Push(const SampledToken& token) override ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(const FinishEvent& event) override ABSL_LOCKS_EXCLUDED(mutex_);
  bool Cancelled() const override { return cancelled_.load(std::memory_order_relaxed); }

  struct Taken {
    std::vector<SampledToken> scores;  // of the prompt's tokens from the second on, where they were asked for
    std::vector<int32_t> tokens;
    std::vector<SampledToken> details;  // one for each token, or empty when log-probabilities weren't asked for
    std::optional<FinishEvent> finish;  // handed out once, after the last token
  };
  Taken Take() ABSL_LOCKS_EXCLUDED(mutex_);

  int64_t num_cached_tokens() const { return num_cached_tokens_.load(); }  // of the prompt; 0 until it starts

  // The reader wants no more tokens: it went away, or it saw a stop string, which counts as a normal end.
  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  void CancelAfterStop();

  // The server gives the sequence up: the reader gets what is there, then this error. What the scheduler says later is
  // ignored. Nothing happens if the sequence has finished.
  void Abort(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void EndWith(const FinishEvent& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ObserveToken(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<StreamWaker> waker_;
  const absl::Time arrival_;
  const bool wants_logprobs_;
  const Clock& clock_;
  Metrics& metrics_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> stopped_{false};
  std::atomic<int64_t> num_cached_tokens_{0};

  absl::Mutex mutex_;
  std::vector<SampledToken> scores_ ABSL_GUARDED_BY(mutex_);
  std::vector<int32_t> tokens_ ABSL_GUARDED_BY(mutex_);
  std::vector<SampledToken> details_ ABSL_GUARDED_BY(mutex_);
  std::optional<FinishEvent> finish_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_pushed_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time first_push_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_push_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
