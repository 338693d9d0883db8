#include "server/text/template_text.h"

#include <algorithm>

namespace weft {

void TemplateText::Append(absl::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_.append(bytes.data(), bytes.size());
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

void TemplateText::AppendRange(const TemplateText& other, size_t begin, size_t end) {
  if (begin >= end) return;
  absl::string_view source = other.bytes_;
  for (size_t run = other.FindRun(begin); begin < end; ++run) {
    size_t run_end = std::min(end, other.runs_[run].end);
    Append(source.substr(begin, run_end - begin), other.runs_[run].trusted);
    begin = run_end;
  }
}

TemplateText TemplateText::Slice(size_t begin, size_t end) const {
  TemplateText result;
  result.AppendRange(*this, begin, end);
  return result;
}

bool TemplateText::TrustedAt(size_t offset) const { return runs_[FindRun(offset)].trusted; }

std::vector<TextSegment> TemplateText::Segments() const {
  std::vector<TextSegment> segments;
  size_t begin = 0;
  for (const Run& run : runs_) {
    segments.push_back({bytes_.substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  return segments;
}

size_t TemplateText::FindRun(size_t offset) const {
  auto it = std::upper_bound(runs_.begin(), runs_.end(), offset,
                             [](size_t value, const Run& run) { return value < run.end; });
  return static_cast<size_t>(it - runs_.begin());
}

}  // namespace weft
