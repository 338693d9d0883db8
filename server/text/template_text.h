#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/text_segment.h"

namespace weft {

// A UTF-8 string that remembers, byte by byte, whether the operator's files or the request wrote it. Every string
// inside a template is one, so origin survives concatenation, slicing, trimming and replacing. Comparisons look at
// bytes() alone.
class TemplateText {
 public:
  TemplateText() = default;
  TemplateText(absl::string_view bytes, bool trusted) { Append(bytes, trusted); }

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void Append(absl::string_view bytes, bool trusted);
  void Append(const TemplateText& other) { AppendRange(other, 0, other.size()); }

  // Appends other[begin, end), in bytes.
  void AppendRange(const TemplateText& other, size_t begin, size_t end);

  // The bytes [begin, end).
  TemplateText Slice(size_t begin, size_t end) const;

  // The origin of one byte. Requires offset < size().
  bool TrustedAt(size_t offset) const;

  // Maximal runs of one origin, in order; empty for an empty text.
  std::vector<TextSegment> Segments() const;

 private:
  struct Run {
    size_t end;  // one past the last byte; the run begins where the one before ends
    bool trusted;
  };

  // The index of the run that holds byte `offset`.
  size_t FindRun(size_t offset) const;

  std::string bytes_;
  std::vector<Run> runs_;  // neighbours differ in origin
};

}  // namespace weft
