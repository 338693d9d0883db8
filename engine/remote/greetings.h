// Callers who have not said yet who they are.
#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"

namespace weft {

// Ends the calls of those who take too long. Thread-safe.
class Greetings {
 public:
  explicit Greetings(absl::Duration longest);
  ~Greetings();

  // Between these, the call may be cancelled.
  void Begin(grpc::ServerContext& context);
  void End(grpc::ServerContext& context);

 private:
  void Run();
  absl::Time CancelTheLate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration longest_;
  absl::Mutex mutex_;
  absl::flat_hash_map<grpc::ServerContext*, absl::Time> deadlines_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace weft
