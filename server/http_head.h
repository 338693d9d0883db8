// A strict look at the head of a request, byte by byte as it arrives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace weft {

// Refuses, as early as it shows, a head on which two parsers could disagree or which costs too much. Beast's parser
// comes after it and gives the fields; what it lets pass and we don't is stopped here: bare LF or CR, NUL and other
// control characters, folded lines, space before a colon, names that aren't tokens, a missing or second or strange
// Host, a second Content-Length, Transfer-Encoding that isn't `chunked` or stands beside Content-Length, methods in
// lower case.
//
// Owned by the reader of one request; linear in the head's bytes however they arrive.
class HttpHeadScanner {
 public:
  explicit HttpHeadScanner(size_t max_head_bytes) : max_head_bytes_(max_head_bytes) {}

  // Goes on in `input`, which is all that arrived since the request began. Errors carry the answer's HTTP status: 400,
  // 414, 431, 505.
  absl::Status Scan(absl::string_view input);

  // Bytes of the head with its blank line, once all of it was seen.
  std::optional<size_t> head_bytes() const { return head_bytes_; }

 private:
  absl::Status ScanLine(absl::string_view line);
  absl::Status ScanHeader(absl::string_view line);
  absl::Status CheckTogether() const;

  const size_t max_head_bytes_;
  size_t scanned_ = 0;     // bytes looked at
  size_t line_begin_ = 0;  // of the line under way
  int num_lines_ = 0;
  bool is_http10_ = false;
  int num_hosts_ = 0;
  int num_content_lengths_ = 0;
  int num_transfer_encodings_ = 0;
  std::optional<size_t> head_bytes_;
};

// The path of a request target, to be matched as it stands: "/a" of "/a?b" and of "http://host/a?b". Nothing is decoded
// or normalised, so no two spellings name one route. Empty for a target that has no path.
absl::string_view PathOfTarget(absl::string_view target);

}  // namespace weft
