#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace weft {

// Finds the first stop string in text that arrives in parts, and never lets out a part of one. One stream owns it and
// uses it from one thread at a time. Each byte costs one step a stop string, whatever the text.
class StopMatcher {
 public:
  struct Result {
    std::string text;            // what may be sent now
    std::optional<size_t> stop;  // which stop string matched, as an index; the stream ends here
  };

  // Empty stop strings match nothing. With include_stop the text that is let out ends with the stop string, without it
  // before it.
  explicit StopMatcher(const std::vector<std::string>& stops, bool include_stop = false);

  // Takes the next text. The match is the one that ends first; of several that end there, the longest, then the one
  // with the lowest index. Text behind a match is dropped, also that of later calls.
  Result Push(absl::string_view text);

  // The text that was held back because it might have become a stop string. The object is then spent.
  std::string Finish();

 private:
  // A stop string as an automaton (Knuth, Morris and Pratt): how much of it the text so far ends with.
  struct Stop {
    std::string text;
    std::vector<size_t> fallback;  // [text.size()] longest proper border of text[0..i]
    size_t num_matched = 0;
  };

  static void Advance(Stop& stop, char c);
  // The stop string that the text so far ends with.
  std::optional<size_t> FindMatch() const;

  std::vector<Stop> stops_;
  const bool include_stop_;
  bool is_done_ = false;
  std::string held_;  // text that isn't let out; ends with what the automata have matched
};

}  // namespace weft
