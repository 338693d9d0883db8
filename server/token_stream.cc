#include "server/token_stream.h"

#include <utility>

namespace weft {
namespace {

Outcome OutcomeOf(FinishReason reason, bool stopped_by_reader) {
  switch (reason) {
    case FinishReason::kStop:
      return Outcome::kStop;
    case FinishReason::kLength:
      return Outcome::kLength;
    case FinishReason::kError:
      return Outcome::kError;
    case FinishReason::kCancelled:
      break;
  }
  return stopped_by_reader ? Outcome::kStop : Outcome::kCancelled;
}

}  // namespace

void StreamWaker::Notify() {
  if (notified_.exchange(true)) return;
  absl::MutexLock lock(&mutex_);
  if (wake_) wake_();
}

void StreamWaker::Disarm() {
  absl::MutexLock lock(&mutex_);
  wake_ = nullptr;
}

TokenStream::TokenStream(std::shared_ptr<StreamWaker> waker, absl::Time arrival, bool wants_logprobs,
                         const Clock& clock, Metrics& metrics)
    : waker_(std::move(waker)), arrival_(arrival), wants_logprobs_(wants_logprobs), clock_(clock), metrics_(metrics) {}

void TokenStream::Push(const SampledToken& token) {
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    if (token.in_prompt) {
      scores_.push_back(token);
      return;  // a reader has no use for them before the first token that is drawn
    }
    ObserveToken(clock_.Now());
    tokens_.push_back(token.token);
    if (wants_logprobs_) details_.push_back(token);
  }
  waker_->Notify();
}

void TokenStream::ObserveToken(absl::Time now) {
  metrics_.CountGeneratedToken();
  if (num_pushed_ == 0) {
    metrics_.ObserveTimeToFirstToken(now - arrival_);
    first_push_ = now;
  } else {
    metrics_.ObserveInterTokenLatency(now - last_push_);
  }
  last_push_ = now;
  ++num_pushed_;
}

void TokenStream::Finish(const FinishEvent& event) {
  {
    absl::MutexLock lock(&mutex_);
    if (ended_) return;
    EndWith(event);
  }
  waker_->Notify();
}

void TokenStream::EndWith(const FinishEvent& event) {
  ended_ = true;
  finish_ = event;
  if (num_pushed_ > 1) {
    metrics_.ObserveTimePerOutputToken((last_push_ - first_push_) / static_cast<double>(num_pushed_ - 1));
  }
  metrics_.ObserveEndToEnd(clock_.Now() - arrival_);
  metrics_.CountFinished(OutcomeOf(event.reason, stopped_.load()));
}

TokenStream::Taken TokenStream::Take() {
  absl::MutexLock lock(&mutex_);
  return {std::exchange(scores_, {}), std::exchange(tokens_, {}), std::exchange(details_, {}),
          std::exchange(finish_, std::nullopt)};
}

void TokenStream::CancelAfterStop() {
  stopped_.store(true);
  Cancel();
}

void TokenStream::Abort(const absl::Status& why) {
  // In this order: once it is cancelled, the scheduler may say so first.
  Finish({.reason = FinishReason::kError, .stop_token = std::nullopt, .status = why});
  Cancel();
}

}  // namespace weft
