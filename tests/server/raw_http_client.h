// A client that sends any bytes and reads what comes, for tests of what no proper client sends.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace weft {

struct RawResponse {
  int status = 0;  // 0: the connection ended, or nothing came in time
  std::string head;
  std::string body;

  // The header's value; empty where it is absent.
  std::string Header(absl::string_view name) const {
    for (const absl::string_view line : absl::StrSplit(head, "\r\n")) {
      const size_t colon = line.find(':');
      if (colon == absl::string_view::npos || !absl::EqualsIgnoreCase(line.substr(0, colon), name)) continue;
      return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return "";
  }
};

class RawHttpClient {
 public:
  explicit RawHttpClient(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval timeout = {10, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  ~RawHttpClient() { close(fd_); }
  RawHttpClient(const RawHttpClient&) = delete;
  RawHttpClient& operator=(const RawHttpClient&) = delete;

  bool connected() const { return connected_; }
  int fd() const { return fd_; }

  // False once the server has closed.
  bool Send(absl::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // The next response, of a request that wasn't HEAD.
  RawResponse Receive() {
    RawResponse response = ReceiveHead();
    size_t length = 0;
    bool whole = true;
    if (response.Header("transfer-encoding") == "chunked") {
      while (ReceiveChunk(response.body)) {
      }
    } else if (absl::SimpleAtoi(response.Header("content-length"), &length)) {
      whole = ReceiveBytes(length, response.body);
    }
    if (!whole) response.status = 0;
    return response;
  }

  // Up to the blank line, and the status.
  RawResponse ReceiveHead() {
    RawResponse response;
    if (!ReceiveUntil("\r\n\r\n", response.head)) return response;
    response.status = std::atoi(response.head.c_str() + response.head.find(' '));
    return response;
  }

  // Appends the next chunk of a chunked body. False: it was the last, or the connection ended.
  bool ReceiveChunk(std::string& body) {
    std::string size, end;
    uint32_t length = 0;
    if (!ReceiveUntil("\r\n", size) || !absl::SimpleHexAtoi(size, &length)) return false;
    return ReceiveBytes(length, body) && ReceiveUntil("\r\n", end) && length > 0;
  }

  // Whether the server closes (in time) without sending more.
  bool SeesClose() {
    char byte;
    return buffer_.empty() && recv(fd_, &byte, 1, 0) == 0;
  }

  // Waits, without reading anything, for the server to end the connection.
  bool AwaitHangUp() {
    pollfd poll_fd = {fd_, 0, 0};
    return poll(&poll_fd, 1, 20000) == 1 && (poll_fd.revents & (POLLHUP | POLLERR)) != 0;
  }

  // Closes so that the server gets a reset.
  void Reset() {
    const linger now = {1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd_);
    fd_ = -1;
  }

 private:
  bool ReceiveUntil(absl::string_view mark, std::string& out) {
    size_t end;
    while ((end = buffer_.find(mark.data(), 0, mark.size())) == std::string::npos) {
      if (!ReceiveMore()) return false;
    }
    out = buffer_.substr(0, end);
    buffer_.erase(0, end + mark.size());
    return true;
  }

  bool ReceiveBytes(size_t count, std::string& out) {
    while (buffer_.size() < count) {
      if (!ReceiveMore()) return false;
    }
    out.append(buffer_, 0, count);
    buffer_.erase(0, count);
    return true;
  }

  bool ReceiveMore() {
    char bytes[4096];
    const ssize_t got = recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(got));
    return true;
  }

  int fd_;
  bool connected_ = false;
  std::string buffer_;
};

}  // namespace weft
