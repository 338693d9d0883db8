#include "server/http_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "server/http_limits.h"

namespace weft {
namespace {

// A peer that vanished without a word is noticed after 15 + 3 x 10 = 45 seconds.
void ConfigureTcp(tcp::socket& socket) {
  boost::system::error_code ignored;  // none of these is needed to serve
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::send_buffer_size(kSendBufferBytes), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const auto set = [&socket](int option, int value) {
    setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof value);
  };
  set(TCP_KEEPIDLE, 15);
  set(TCP_KEEPINTVL, 10);
  set(TCP_KEEPCNT, 3);
}

}  // namespace

HttpSocket::HttpSocket(tcp::socket socket, asio::ssl::context* tls) : tcp_(std::move(socket)) {
  ConfigureTcp(tcp_);
  if (tls != nullptr) tls_.emplace(tcp_, *tls);
}

bool HttpSocket::PeerLeft() {
  pollfd look = {.fd = tcp_.native_handle(), .events = POLLRDHUP, .revents = 0};
  return poll(&look, 1, 0) > 0 && look.revents != 0;
}

void HttpSocket::ShutdownSend() {
  boost::system::error_code ignored;  // the peer may have gone already
  tcp_.shutdown(tcp::socket::shutdown_send, ignored);
}

void HttpSocket::Close() {
  boost::system::error_code ignored;
  tcp_.close(ignored);
}

}  // namespace weft
