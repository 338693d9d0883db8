#pragma once

#include <string>

namespace weft {

// A run of prompt text with one origin: what a chat template hands to the tokenizer.
// Plain value; owned by whoever holds it.
struct TextSegment {
  // UTF-8 bytes.
  std::string text;

  // True only for text that the operator's files wrote (template literals, bos and eos). Special-token text is
  // recognised in trusted text alone; the same characters in request data stay ordinary characters.
  bool trusted = false;
};

}  // namespace weft
