// Threads for work that takes long, and a bound on how much of it may wait.
#pragma once

#include <atomic>
#include <utility>

#include "boost/asio/post.hpp"
#include "boost/asio/thread_pool.hpp"

namespace weft {

// Owned by a front end, for what would hold up its connections: parsing and tokenizing. Thread-safe.
class BoundedPool {
 public:
  BoundedPool(int num_threads, int max_jobs) : threads_(static_cast<size_t>(num_threads)), max_jobs_(max_jobs) {}

  // False, and the job is dropped, when max_jobs run or wait. The job may not throw.
  template <typename Job>
  bool TryPost(Job job) {
    if (num_jobs_.fetch_add(1) >= max_jobs_) {
      --num_jobs_;
      return false;
    }
    boost::asio::post(threads_, [this, job = std::move(job)]() mutable {
      job();
      --num_jobs_;
    });
    return true;
  }

  // Waits for all jobs. Nothing may be posted any more.
  void Join() { threads_.join(); }

 private:
  boost::asio::thread_pool threads_;
  const int max_jobs_;
  std::atomic<int> num_jobs_{0};
};

}  // namespace weft
