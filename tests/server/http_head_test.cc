// Table H, as far as the head of a request alone decides.
#include "server/http_head.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/api_error.h"

namespace weft {
namespace {

constexpr size_t kMaxHeadBytes = 32 << 10;

// 200, or the HTTP status of the refusal. The bytes arrive `step` at a time.
int Scan(absl::string_view head, size_t step) {
  HttpHeadScanner scanner(kMaxHeadBytes);
  for (size_t end = 0; end < head.size();) {
    end = std::min(head.size(), end + step);
    const absl::Status status = scanner.Scan(head.substr(0, end));
    if (!status.ok()) return HttpStatus(status);
  }
  return scanner.head_bytes() == head.size() ? 200 : 0;
}

std::string Get(absl::string_view headers) {
  return absl::StrCat("GET /v1/models HTTP/1.1\r\nHost: localhost:8000\r\n", headers, "\r\n");
}

std::string Headers(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) absl::StrAppend(&out, "x-", i, ": y\r\n");
  return out;
}

TEST(HttpHeadScannerTest, JudgesHeadsHoweverTheyArrive) {
  const struct {
    std::string head;
    int status;
  } cases[] = {
      {Get(""), 200},
      {Get("Content-Length: 0\r\n"), 200},
      {Get("Transfer-Encoding: Chunked\r\n"), 200},
      {Get("x: a%0d%0ab\r\nEmpty:\r\nTabbed:\ta\tb \r\n"), 200},
      {Get("x: caf\xC3\xA9\r\n"), 200},
      {Get(Headers(99)), 200},
      {"GET / HTTP/1.0\r\n\r\n", 200},
      {"GET http://a/v1/models HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200},
      {absl::StrCat("GET /", std::string(8000, 'a'), " HTTP/1.1\r\nHost: a\r\n\r\n"), 200},
      // The request line
      {std::string("\x16\x03\x01\x02\x00\x01\xFC\r\n\r\n", 11), 400},
      {"\r\r\n\r\n", 400},
      {"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/9.9\r\nHost: a\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\n", 505},
      {"GET / FTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {"GET /\xC3\xA9 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
      {absl::StrCat("GET /", std::string(1 << 20, 'a')), 414},
      // Line ends and characters
      {"GET / HTTP/1.1\nHost: a\n\n", 400},
      {"GET / HTTP/1.1\r\nHost: a\nx: y\r\n\r\n", 400},
      {Get("x: a\rb\r\n"), 400},
      {Get(absl::StrCat("x: a", std::string(1, '\0'), "b\r\n")), 400},
      {Get("x: a\x7F\r\n"), 400},
      {Get("x: a\r\n folded\r\n"), 400},
      {Get("x : a\r\n"), 400},
      {Get(": a\r\n"), 400},
      {Get("no colon\r\n"), 400},
      {Get("a(b: c\r\n"), 400},
      // Sizes
      {Get(absl::StrCat("x: ", std::string(40 << 10, 'a'))), 431},
      {Get(Headers(100)), 431},
      {Get(Headers(10000)), 431},
      // The body's length
      {Get("Content-Length: 5\r\nContent-Length: 6\r\n"), 400},
      {Get("Content-Length: 5\r\nContent-Length: 5\r\n"), 400},
      {Get("Content-Length: 5, 5\r\n"), 400},
      {Get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400},
      {Get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
      {Get("Transfer-Encoding: chunked, identity\r\n"), 400},
      {Get("Transfer-Encoding: xchunked\r\n"), 400},
      {Get("Content-Length: -1\r\n"), 400},
      {Get("Content-Length: +5\r\n"), 400},
      {Get("Content-Length: 0x10\r\n"), 400},
      {Get("Content-Length: 1e3\r\n"), 400},
      {Get("Content-Length: 18446744073709551616\r\n"), 400},
      {Get("Content-Length:\r\n"), 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      // Host
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {Get("Host: b\r\n"), 400},
      {"GET / HTTP/1.1\r\nHost: x/v1/health?\r\n\r\n", 400},
      {"GET / HTTP/1.1\r\nHost: user@x\r\n\r\n", 400},
  };
  for (const auto& c : cases) {
    for (const size_t step : {size_t{1}, size_t{7}, c.head.size()}) {
      EXPECT_EQ(Scan(c.head, step), c.status) << "by " << step << ": " << c.head.substr(0, 100);
    }
  }
}

TEST(HttpHeadScannerTest, EndsAtTheBlankLine) {
  HttpHeadScanner scanner(kMaxHeadBytes);
  const std::string head = Get("Content-Length: 3\r\n");
  ASSERT_TRUE(scanner.Scan(head + "a\nb").ok()) << "the body is not the scanner's to judge";
  EXPECT_EQ(scanner.head_bytes(), head.size());
}

TEST(PathOfTargetTest, IsTheTextBeforeTheQuery) {
  const struct {
    absl::string_view target, path;
  } cases[] = {
      {"/a?b", "/a"}, {"http://h/a?b", "/a"},         {"https://h:1/a/b", "/a/b"},      {"http://h", ""},  {"*", ""},
      {"a", ""},      {"//v1/models", "//v1/models"}, {"/v1/%2e%2e/a", "/v1/%2e%2e/a"}, {"ftp://h/a", ""}, {"", ""}};
  for (const auto& c : cases) EXPECT_EQ(PathOfTarget(c.target), c.path) << c.target;
}

}  // namespace
}  // namespace weft
