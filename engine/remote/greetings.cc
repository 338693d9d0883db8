#include "engine/remote/greetings.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace weft {

Greetings::Greetings(absl::Duration longest) : longest_(longest), thread_([this] { Run(); }) {}

Greetings::~Greetings() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void Greetings::Begin(grpc::ServerContext& context) {
  absl::MutexLock lock(&mutex_);
  deadlines_[&context] = absl::Now() + longest_;
}

void Greetings::End(grpc::ServerContext& context) {
  absl::MutexLock lock(&mutex_);
  deadlines_.erase(&context);
}

// Whoever comes meanwhile has a later deadline than the time that this waits for.
void Greetings::Run() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) mutex_.AwaitWithDeadline(absl::Condition(&stopping_), CancelTheLate());
}

// Returns when to look again.
absl::Time Greetings::CancelTheLate() {
  const absl::Time now = absl::Now();
  absl::Time next = now + longest_;
  for (auto& [context, deadline] : deadlines_) {
    if (deadline <= now) {
      context->TryCancel();
      deadline = absl::InfiniteFuture();
    }
    next = std::min(next, deadline);
  }
  return next;
}

}  // namespace weft
