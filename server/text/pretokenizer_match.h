#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/strings/string_view.h"

namespace weft {

// A run [begin, end) of bytes that a splitting pattern matched, or that lies between two matches.
struct Match {
  size_t begin = 0;
  size_t end = 0;
  bool is_match = false;
};

// Appends the matches of a pattern in valid UTF-8 and what lies between, which together cover the text without gap or
// overlap. Linear, or bounded as its maker says; safe on any thread.
using Matcher = std::function<void(absl::string_view text, std::vector<Match>& matches)>;

// Appends the match [begin, end) and, before it, what has been left since the last one.
inline void AppendMatch(size_t begin, size_t end, std::vector<Match>& matches) {
  const size_t covered = matches.empty() ? 0 : matches.back().end;
  if (covered < begin) matches.push_back({covered, begin, false});
  matches.push_back({begin, end, true});
}

// Appends what is left after the last match.
inline void AppendRest(absl::string_view text, std::vector<Match>& matches) {
  const size_t covered = matches.empty() ? 0 : matches.back().end;
  if (covered < text.size()) matches.push_back({covered, text.size(), false});
}

}  // namespace weft
