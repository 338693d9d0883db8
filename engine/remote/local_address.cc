#include "engine/remote/local_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace weft {
namespace {

// "[::1]:80" -> "::1", "80".
std::pair<std::string, std::string> Split(absl::string_view host_port) {
  const size_t colon = host_port.rfind(':');
  absl::string_view host = host_port.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return {std::string(host), colon == absl::string_view::npos ? "" : std::string(host_port.substr(colon + 1))};
}

}  // namespace

absl::StatusOr<std::string> LocalAddressTowards(absl::string_view host_port) {
  const auto [host, port] = Split(host_port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;  // connecting it sends nothing
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("coordinator: '", host_port, "' is no address"));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  for (const addrinfo* address = found; address != nullptr; address = address->ai_next) {
    const int fd = socket(address->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    std::array<char, NI_MAXHOST> text{};
    const bool is_known =
        connect(fd, address->ai_addr, address->ai_addrlen) == 0 &&
        getsockname(fd, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
        getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0;
    close(fd);
    if (is_known) return std::string(text.data());
  }
  return absl::UnavailableError(absl::StrCat("coordinator: no route to '", host_port, "'"));
}

}  // namespace weft
