#include "server/http_channel.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "server/http_limits.h"

namespace weft {
namespace {

constexpr size_t kReadBytes = 4096;          // of an idle connection
constexpr size_t kBulkReadBytes = 64 << 10;  // once a read came back full
constexpr absl::Duration kLookInterval = absl::Milliseconds(250);
constexpr absl::Duration kLongest = absl::Hours(1);  // of one wait; callers look and wait again

}  // namespace

HttpChannel::HttpChannel(tcp::socket socket, asio::ssl::context* tls, absl::Duration write_timeout)
    : socket_(std::move(socket), tls),
      executor_(socket_.get_executor()),
      timer_(executor_),
      write_timeout_(write_timeout),
      read_area_(kReadBytes) {}

void HttpChannel::Notify() {
  notified_ = true;
  timer_.cancel();
}

asio::awaitable<void> HttpChannel::Wait(absl::Time deadline) {
  if (!notified_) {
    const absl::Duration wait = std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kLongest);
    timer_.expires_after(absl::ToChronoNanoseconds(wait));
    boost::system::error_code cancelled;  // by Notify
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  }
  notified_ = false;
}

void HttpChannel::StartRead() {
  if (reading_ || client_gone() || input_.size() >= kMaxInputBytes) return;
  reading_ = true;
  socket_.AsyncReadSome(asio::buffer(read_area_),
                        [self = shared_from_this()](const boost::system::error_code& error, size_t bytes) {
                          self->reading_ = false;
                          self->read_error_ = error;
                          self->input_.append(self->read_area_.data(), bytes);
                          if (bytes == self->read_area_.size()) self->read_area_.resize(kBulkReadBytes);
                          self->Notify();
                        });
}

asio::awaitable<bool> HttpChannel::Handshake(absl::Time deadline) {
  if (!socket_.is_tls()) co_return true;
  bool done = false;
  socket_.AsyncHandshake([self = shared_from_this(), &done](const boost::system::error_code& error) {
    done = true;
    self->read_error_ = error;
    self->Notify();
  });
  while (!done) {
    co_await Wait(deadline);
    if (!done && absl::Now() >= deadline) CloseNow();
  }
  co_return !client_gone();
}

asio::awaitable<bool> HttpChannel::ReadBeyond(size_t bytes, absl::Time deadline) {
  StartRead();
  while (input_.size() <= bytes && !client_gone() && absl::Now() < deadline) {
    co_await Wait(deadline);
    StartRead();
  }
  co_return input_.size() > bytes;
}

asio::awaitable<void> HttpChannel::WaitForNews(absl::Time deadline) {
  StartRead();
  if (!reading_ && !client_gone()) {  // so much is pipelined that no read is under way to tell that the client left
    if (socket_.PeerLeft()) CloseNow();
    deadline = std::min(deadline, absl::Now() + kLookInterval);
  }
  if (!client_gone()) co_await Wait(deadline);
}

void HttpChannel::StartWriteRest() {
  writing_ = true;
  socket_.AsyncWriteSome(asio::buffer(output_) + written_,
                         [self = shared_from_this()](const boost::system::error_code& error, size_t bytes) {
                           self->writing_ = false;
                           self->write_error_ = error;
                           self->written_ += bytes;
                           self->Notify();
                         });
}

asio::awaitable<bool> HttpChannel::Write(std::string bytes) {
  output_ = std::move(bytes);
  written_ = 0;
  // What was read doesn't matter here: a client may have left its sending side and still take this answer.
  while (written_ < output_.size() && !write_error_ && !cut_off_) {
    StartWriteRest();
    const absl::Time deadline = absl::Now() + write_timeout_;
    while (writing_) {
      co_await Wait(deadline);
      if (writing_ && absl::Now() >= deadline) CloseNow();
    }
  }
  notified_ = true;  // what came meanwhile is still to be looked at
  co_return !write_error_ && !cut_off_;
}

std::function<void()> HttpChannel::Waker() {
  return [weak = weak_from_this(), executor = executor_] {
    asio::post(executor, [weak] {
      if (const auto self = weak.lock()) self->Notify();
    });
  };
}

asio::awaitable<void> HttpChannel::ShutdownTls(absl::Time deadline) {
  bool done = false;
  socket_.AsyncShutdown([self = shared_from_this(), &done](const boost::system::error_code&) {
    done = true;
    self->Notify();
  });
  while (!done) {
    co_await Wait(deadline);
    if (!done && absl::Now() >= deadline) CloseNow();
  }
}

asio::awaitable<void> HttpChannel::LingerAndClose() {
  // To close on unread input would reset the connection, and the reset may overtake our answer.
  const absl::Time deadline = absl::Now() + kLingerTime;
  int64_t discarded = 0;
  if (socket_.is_tls() && !client_gone()) co_await ShutdownTls(deadline);
  if (!client_gone()) socket_.ShutdownSend();
  while (!client_gone() && absl::Now() < deadline && discarded < kMaxLingerBytes) {
    discarded += static_cast<int64_t>(input_.size());
    input_.clear();
    co_await ReadBeyond(0, deadline);
  }
  CloseNow();
}

void HttpChannel::CutOff() {
  asio::post(executor_, [self = shared_from_this()] { self->CloseNow(); });
}

void HttpChannel::CloseIfIdle() {
  asio::post(executor_, [self = shared_from_this()] {
    if (self->idle_) self->CloseNow();
  });
}

void HttpChannel::CloseNow() {
  if (cut_off_) return;  // and no second Notify: a loop that waits for the end of an operation has to suspend
  cut_off_ = true;
  socket_.Close();
  Notify();
}

}  // namespace weft
