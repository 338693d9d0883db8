// What all connections of one HttpServer share.
#pragma once

#include <atomic>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "server/bounded_pool.h"
#include "server/front_end_limits.h"
#include "server/http_channel.h"
#include "server/http_server.h"

namespace weft {

// Owned by the HttpServer; outlives every connection. Thread-safe.
struct HttpContext {
  HttpContext(const HttpOptions& http_options, HttpDeps http_deps)
      : options(http_options), deps(std::move(http_deps)) {}

  const HttpOptions options;
  const HttpDeps deps;
  std::atomic<GenerationService*> service{nullptr};  // null until there is a model
  std::atomic<bool> draining{false};                 // each connection ends after its next answer
  BoundedPool preparing_pool{kPreparingThreads, kMaxPreparing};
  BoundedPool converting_pool{kConvertingThreads, kMaxPreparing};

  absl::Mutex mutex;
  absl::flat_hash_map<HttpChannel*, std::weak_ptr<HttpChannel>> channels ABSL_GUARDED_BY(mutex);
};

// One connection among `context.channels`, while it lives.
class HttpRegistration {
 public:
  HttpRegistration(HttpContext& context, const std::shared_ptr<HttpChannel>& channel)
      : context_(context), channel_(channel.get()) {
    const absl::MutexLock lock(&context_.mutex);
    context_.channels[channel_] = channel;
  }
  ~HttpRegistration() {
    const absl::MutexLock lock(&context_.mutex);
    context_.channels.erase(channel_);
  }
  HttpRegistration(const HttpRegistration&) = delete;
  HttpRegistration& operator=(const HttpRegistration&) = delete;

 private:
  HttpContext& context_;
  HttpChannel* const channel_;
};

}  // namespace weft
