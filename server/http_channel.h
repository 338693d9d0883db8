// One client's connection for the coroutine that serves it: bytes in, bytes out, and everything that may happen
// meanwhile in one place to wait.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "boost/asio/awaitable.hpp"
#include "boost/asio/post.hpp"
#include "boost/asio/steady_timer.hpp"
#include "server/api_error.h"
#include "server/bounded_pool.h"
#include "server/http_socket.h"

namespace weft {

// At most one read is under way; what it brings goes into `input()`, whoever waits for what. So a client that leaves is
// seen at once also while it is only being written to, or waits for its tokens, and pipelined requests are kept, up to
// a bound, until their turn. A client that shuts down its sending side counts as gone: TCP doesn't tell the two apart.
//
// Shared by its coroutine, its operations under way, and wakers (weakly). All methods belong to the connection's
// strand, except Waker's result, CutOff and CloseIfIdle. One coroutine at a time waits.
class HttpChannel : public std::enable_shared_from_this<HttpChannel> {
 public:
  // `write_timeout`: for a client to take something of what is written to it.
  HttpChannel(tcp::socket socket, asio::ssl::context* tls, absl::Duration write_timeout);

  // For TLS; succeeds at once otherwise.
  asio::awaitable<bool> Handshake(absl::Time deadline);

  // Bytes that arrived and were not consumed yet.
  absl::string_view input() const { return input_; }
  void Consume(size_t bytes) { input_.erase(0, bytes); }

  // Until more input than `bytes` is there. False: the deadline passed or the client is gone.
  asio::awaitable<bool> ReadBeyond(size_t bytes, absl::Time deadline);

  // Until all of it is with the kernel. False: the client is gone, or took nothing for too long and was cut off.
  asio::awaitable<bool> Write(std::string bytes);

  // Until the deadline, a Waker's call, input, or the client's leaving. May return early; look and wait again.
  asio::awaitable<void> WaitForNews(absl::Time deadline);

  // A function that wakes WaitForNews, for any thread and for longer than the channel lives.
  std::function<void()> Waker();

  // Runs `job` on the pool and gives its result here. `R` can be made from an absl::Status, in case the pool is full,
  // the job throws, or the client leaves before the job begins, which then is not done.
  template <typename R>
  asio::awaitable<R> RunOn(BoundedPool& pool, std::function<R()> job);

  bool client_gone() const { return cut_off_ || read_error_ || write_error_; }

  // Whether the client has nothing to wait for, so that CloseIfIdle may close.
  void set_idle(bool idle) { idle_ = idle; }

  // Nothing more comes from here; waits a moment for the client to take what was sent, then closes.
  asio::awaitable<void> LingerAndClose();

  // Ends all operations; the coroutine finds the client gone. From any thread.
  void CutOff();
  void CloseIfIdle();  // from any thread

 private:
  void StartRead();
  void StartWriteRest();
  void Notify();
  void CloseNow();
  asio::awaitable<void> ShutdownTls(absl::Time deadline);
  asio::awaitable<void> Wait(absl::Time deadline);

  HttpSocket socket_;
  asio::any_io_executor executor_;
  asio::steady_timer timer_;
  const absl::Duration write_timeout_;
  bool notified_ = false;
  bool idle_ = false;
  bool cut_off_ = false;

  std::string input_;
  std::vector<char> read_area_;  // where the read under way puts its bytes
  bool reading_ = false;
  boost::system::error_code read_error_;

  std::string output_;
  size_t written_ = 0;  // bytes of output_
  bool writing_ = false;
  boost::system::error_code write_error_;
};

template <typename R>
asio::awaitable<R> HttpChannel::RunOn(BoundedPool& pool, std::function<R()> job) {
  R result = absl::InternalError("a job of the front end threw");
  bool done = false;
  // This frame stays until `done`, so both lambdas may refer to it.
  std::atomic<bool> abandoned{false};
  const bool posted = pool.TryPost([this, &job, &result, &done, &abandoned] {
    try {
      result = abandoned ? R(absl::CancelledError("the client left")) : job();
    } catch (...) {  // std::bad_alloc: the request fails, the server lives
    }
    asio::post(executor_, [this, &done] {
      done = true;
      Notify();
    });
  });
  if (!posted) co_return Overloaded();
  while (!done) {
    StartRead();
    co_await Wait(absl::InfiniteFuture());
    abandoned = client_gone();
  }
  co_return std::move(result);
}

}  // namespace weft
