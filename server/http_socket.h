// A client's connection as bytes: plain TCP or TLS.
#pragma once

#include <optional>
#include <utility>

#include "boost/asio/buffer.hpp"
#include "boost/asio/ip/tcp.hpp"
#include "boost/asio/ssl.hpp"

namespace weft {

namespace asio = boost::asio;
using asio::ip::tcp;

// One read and one write may be under way at the same time. Handlers run on the socket's executor, a strand. Owned by
// its HttpChannel.
class HttpSocket {
 public:
  // `tls` is null for plain TCP, and outlives the socket otherwise.
  HttpSocket(tcp::socket socket, asio::ssl::context* tls);

  asio::any_io_executor get_executor() { return tcp_.get_executor(); }
  bool is_tls() const { return tls_.has_value(); }

  template <typename Handler>  // void(error_code); requires is_tls()
  void AsyncHandshake(Handler handler) {
    tls_->async_handshake(asio::ssl::stream_base::server, std::move(handler));
  }

  template <typename Handler>  // void(error_code, size_t)
  void AsyncReadSome(asio::mutable_buffer buffer, Handler handler) {
    if (tls_.has_value()) {
      tls_->async_read_some(buffer, std::move(handler));
    } else {
      tcp_.async_read_some(buffer, std::move(handler));
    }
  }

  template <typename Handler>  // void(error_code, size_t)
  void AsyncWriteSome(asio::const_buffer buffer, Handler handler) {
    if (tls_.has_value()) {
      tls_->async_write_some(buffer, std::move(handler));
    } else {
      tcp_.async_write_some(buffer, std::move(handler));
    }
  }

  // Exchanges farewells, so that the client knows that it got everything; requires is_tls() and that nothing is being
  // written.
  template <typename Handler>  // void(error_code)
  void AsyncShutdown(Handler handler) {
    tls_->async_shutdown(std::move(handler));
  }

  // Whether the peer has closed or reset its side, also where unread input hides that from a read.
  bool PeerLeft();

  // Says that nothing more is sent; what the client sends can still be read.
  void ShutdownSend();

  // Operations under way end with an error.
  void Close();

 private:
  tcp::socket tcp_;
  std::optional<asio::ssl::stream<tcp::socket&>> tls_;
};

}  // namespace weft
