#include "server/http_server.h"

#include <algorithm>
#include <exception>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "boost/asio/co_spawn.hpp"
#include "boost/asio/detached.hpp"
#include "boost/asio/executor_work_guard.hpp"
#include "boost/asio/io_context.hpp"
#include "boost/asio/redirect_error.hpp"
#include "boost/asio/strand.hpp"
#include "boost/asio/use_awaitable.hpp"
#include "kernels/status_macros.h"
#include "server/http_connection.h"
#include "server/http_context.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr absl::Duration kAcceptBackoff = absl::Milliseconds(100);
constexpr absl::Duration kCutOffTime = absl::Seconds(5);  // for coroutines to notice

absl::StatusOr<std::unique_ptr<asio::ssl::context>> MakeTls(const HttpOptions& options) {
  if (options.tls_cert_file.empty() && options.tls_key_file.empty()) return nullptr;
  auto tls = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  boost::system::error_code error;
  tls->use_certificate_chain_file(options.tls_cert_file, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("cannot use certificate ", options.tls_cert_file));
  tls->use_private_key_file(options.tls_key_file, asio::ssl::context::pem, error);
  if (error || SSL_CTX_check_private_key(tls->native_handle()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot use private key ", options.tls_key_file, " with certificate ", options.tls_cert_file));
  }
  return tls;
}

absl::Status Listen(tcp::acceptor& acceptor, const HttpOptions& options) {
  boost::system::error_code error;
  const asio::ip::address address =
      asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("--host ", options.host, " is not an IP address"));
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(options.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot listen on ", options.host, ":", options.port, ": ", error.message()));
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpOptions& options, HttpDeps deps)
      : context_(options, std::move(deps)), acceptor_(asio::make_strand(io_)), backoff_(acceptor_.get_executor()) {}

  absl::Status Start() {
    ASSIGN_OR_RETURN(tls_, MakeTls(context_.options));
    RETURN_IF_ERROR(Listen(acceptor_, context_.options));
    port_ = acceptor_.local_endpoint().port();
    asio::co_spawn(acceptor_.get_executor(), Accept(), asio::detached);
    for (int i = 0; i < std::max(context_.options.threads, 1); ++i) {
      threads_.emplace_back([this] { RunLoop(); });
    }
    return absl::OkStatus();
  }

  int port() const { return port_; }
  HttpContext& context() { return context_; }

  void Stop(absl::Duration grace) {
    const absl::MutexLock lock(&stop_mutex_);
    if (threads_.empty()) return;
    context_.draining = true;
    asio::post(acceptor_.get_executor(), [this] {
      stopping_ = true;
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      backoff_.cancel();
    });
    ForEachChannel(&HttpChannel::CloseIfIdle);
    if (!WaitForConnections(grace)) {
      ForEachChannel(&HttpChannel::CutOff);
      if (!WaitForConnections(kCutOffTime)) spdlog::error("http: connections are still busy at the end");
    }
    context_.preparing_pool.Join();
    context_.converting_pool.Join();
    work_.reset();
    io_.stop();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  // A handler that throws (out of memory, say) ends its connection at the most, never the server.
  void RunLoop() {
    while (true) {
      try {
        io_.run();
        return;
      } catch (const std::exception&) {
        spdlog::error("http: a handler ended with an exception");
      }
    }
  }

  asio::awaitable<void> Accept() {
    while (!stopping_) {
      tcp::socket socket(asio::make_strand(io_));
      boost::system::error_code error;
      co_await acceptor_.async_accept(socket, asio::redirect_error(asio::use_awaitable, error));
      if (stopping_) break;
      if (!error) {
        TryServe(std::move(socket));
      } else if (error != boost::asio::error::connection_aborted) {
        // Out of descriptors, most likely. The client waits in the backlog until one is free.
        spdlog::warn("http: cannot accept: {}", error.message());
        backoff_.expires_after(absl::ToChronoMilliseconds(kAcceptBackoff));
        co_await backoff_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      }
    }
  }

  void TryServe(tcp::socket socket) {
    try {
      Serve(std::move(socket));
    } catch (const std::exception&) {  // out of memory, say; this connection is closed, the next one is accepted
      spdlog::error("http: a connection could not be served");
    }
  }

  void Serve(tcp::socket socket) {
    if (NumConnections() >= context_.options.max_connections) {  // closes it
      spdlog::warn("http: a connection beyond max-connections was closed");
      return;
    }
    const asio::any_io_executor executor = socket.get_executor();
    auto channel = std::make_shared<HttpChannel>(std::move(socket), tls_.get(), context_.options.write_timeout);
    auto registration = std::make_unique<HttpRegistration>(context_, channel);
    asio::co_spawn(executor, ServeConnection(std::move(channel), std::move(registration), context_), asio::detached);
  }

  int NumConnections() {
    const absl::MutexLock lock(&context_.mutex);
    return static_cast<int>(context_.channels.size());
  }

  void ForEachChannel(void (HttpChannel::*action)()) {
    const absl::MutexLock lock(&context_.mutex);
    for (const auto& [address, weak] : context_.channels) {
      if (const std::shared_ptr<HttpChannel> channel = weak.lock()) (channel.get()->*action)();
    }
  }

  bool WaitForConnections(absl::Duration at_most) {
    const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(context_.mutex) { return context_.channels.empty(); };
    context_.mutex.Lock();
    const bool empty = context_.mutex.AwaitWithTimeout(absl::Condition(&none), at_most);
    context_.mutex.Unlock();
    return empty;
  }

  HttpContext context_;
  std::unique_ptr<asio::ssl::context> tls_;
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io_);
  tcp::acceptor acceptor_;
  asio::steady_timer backoff_;  // of the accept loop, on its strand
  bool stopping_ = false;       // on the accept loop's strand
  int port_ = 0;

  absl::Mutex stop_mutex_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(stop_mutex_);
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() { Stop(absl::ZeroDuration()); }

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpOptions& options, HttpDeps deps) {
  auto impl = std::make_unique<Impl>(options, std::move(deps));
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port(); }

void HttpServer::AttachService(GenerationService& service) { impl_->context().service.store(&service); }

void HttpServer::BeginDrain() { impl_->context().draining.store(true); }

void HttpServer::Stop(absl::Duration grace) { impl_->Stop(grace); }

}  // namespace weft
