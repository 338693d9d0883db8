#include "server/http_head.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/http_limits.h"

namespace weft {
namespace {

absl::Status BadHead(absl::string_view message) { return BadRequest("bad_request", "", message); }

absl::Status HeadTooLarge() {
  return WithHttpStatus(BadRequest("headers_too_large", "", "The request's headers are too large."), 431);
}

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("!#$%&'*+-.^_`|~", c);
}

bool IsHostChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~:[]%", c);
}

template <typename Predicate>
bool All(absl::string_view text, Predicate predicate) {
  return std::all_of(text.begin(), text.end(), predicate);
}

// Visible characters, spaces and tabs, and the bytes from 0x80 on that old clients send.
bool IsFieldValue(absl::string_view value) {
  return All(value, [](char c) { return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F); });
}

// "GET /path HTTP/1.1"; `is_http10` is set for version 1.0.
absl::Status CheckRequestLine(absl::string_view line, bool& is_http10) {
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == absl::string_view::npos || first == last) return BadHead("The request line is malformed.");
  const absl::string_view method = line.substr(0, first);
  const absl::string_view target = line.substr(first + 1, last - first - 1);
  const absl::string_view version = line.substr(last + 1);
  const auto is_upper = [](char c) { return absl::ascii_isupper(static_cast<unsigned char>(c)); };
  if (method.empty() || !All(method, is_upper)) return BadHead("The method is malformed.");
  if (target.empty() || !All(target, [](char c) { return c > 0x20 && c < 0x7F; })) {
    return BadHead("The request target is malformed.");
  }
  if (!absl::StartsWith(version, "HTTP/")) return BadHead("The request line is malformed.");
  if (version != "HTTP/1.1" && version != "HTTP/1.0") {
    return WithHttpStatus(BadRequest("http_version", "", "Only HTTP/1.1 and HTTP/1.0 are spoken here."), 505);
  }
  is_http10 = version == "HTTP/1.0";
  return absl::OkStatus();
}

}  // namespace

absl::Status HttpHeadScanner::Scan(absl::string_view input) {
  for (; !head_bytes_.has_value() && scanned_ < input.size(); ++scanned_) {
    if (scanned_ >= max_head_bytes_) return HeadTooLarge();
    const char c = input[scanned_];
    const bool after_cr = scanned_ > line_begin_ && input[scanned_ - 1] == '\r';
    if (after_cr != (c == '\n')) return BadHead("Lines must end in CR LF.");
    if (num_lines_ == 0 && scanned_ >= kMaxRequestLineBytes) {
      return WithHttpStatus(BadRequest("uri_too_long", "", "The request line is too long."), 414);
    }
    if (num_lines_ == 0 && c != '\r' && c != '\n' && (c < 0x20 || c == 0x7F)) {
      return BadHead("This is not HTTP.");  // a TLS hello, most likely, which never has a line's end
    }
    if (c != '\n') continue;
    const absl::string_view line = input.substr(line_begin_, scanned_ - 1 - line_begin_);
    line_begin_ = scanned_ + 1;
    RETURN_IF_ERROR(ScanLine(line));
    if (line.empty()) head_bytes_ = line_begin_;
  }
  return absl::OkStatus();
}

absl::Status HttpHeadScanner::ScanLine(absl::string_view line) {
  const int number = num_lines_++;
  if (number == 0) return CheckRequestLine(line, is_http10_);
  if (line.empty()) return CheckTogether();
  if (number > kMaxHeaderLines) return HeadTooLarge();
  return ScanHeader(line);
}

absl::Status HttpHeadScanner::ScanHeader(absl::string_view line) {
  const size_t colon = line.find(':');
  const absl::string_view name = line.substr(0, colon);
  // A space before the colon and a folded line (which begins with a space) are no tokens either.
  if (colon == absl::string_view::npos || name.empty() || !All(name, IsTokenChar)) {
    return BadHead("A header's name is malformed.");
  }
  const absl::string_view value = absl::StripAsciiWhitespace(line.substr(colon + 1));
  if (!IsFieldValue(value)) return BadHead("A header's value has a control character.");
  if (absl::EqualsIgnoreCase(name, "host")) {
    ++num_hosts_;
    if (!All(value, IsHostChar)) return BadHead("The Host header is malformed.");
  } else if (absl::EqualsIgnoreCase(name, "content-length")) {
    ++num_content_lengths_;
    uint64_t length = 0;
    const auto is_digit = [](char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); };
    if (!All(value, is_digit) || !absl::SimpleAtoi(value, &length)) return BadHead("Content-Length is not a number.");
  } else if (absl::EqualsIgnoreCase(name, "transfer-encoding")) {
    ++num_transfer_encodings_;
    if (!absl::EqualsIgnoreCase(value, "chunked")) return BadHead("The only transfer encoding is chunked.");
  }
  return absl::OkStatus();
}

absl::Status HttpHeadScanner::CheckTogether() const {
  if (num_hosts_ > 1 || (num_hosts_ == 0 && !is_http10_)) return BadHead("There must be one Host header.");
  if (num_content_lengths_ + num_transfer_encodings_ > 1) {
    return BadHead("The body's length is given more than once.");
  }
  if (is_http10_ && num_transfer_encodings_ > 0) return BadHead("HTTP/1.0 has no transfer encodings.");
  return absl::OkStatus();
}

absl::string_view PathOfTarget(absl::string_view target) {
  if (absl::ConsumePrefix(&target, "http://") || absl::ConsumePrefix(&target, "https://")) {
    const size_t slash = target.find('/');
    target = slash == absl::string_view::npos ? absl::string_view() : target.substr(slash);
  }
  if (!absl::StartsWith(target, "/")) return {};
  return target.substr(0, target.find('?'));
}

}  // namespace weft
