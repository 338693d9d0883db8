#pragma once

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "server/text/tokenizer.h"

namespace weft {

// Turns a growing sequence of ids into text, in parts that are final: no part is ever revised, none splits a character,
// and all parts together are what Tokenizer::Decode gives for all ids. Each delta is valid UTF-8.
// One stream owns it and uses it from one thread at a time; the tokenizer must outlive it.
class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special);

  // Takes the next ids; returns the text that is now certain. What could still become a different character is held
  // back: with ByteLevel the last bytes of an incomplete character; with ByteFallback a whole run of byte tokens while
  // it is valid, for one wrong byte makes each byte of the run a U+FFFD.
  std::string Push(absl::Span<const int32_t> ids);

  // The text that was held back, with U+FFFD for what is no character. The object is then spent.
  std::string Finish();

 private:
  void Append(int32_t id, std::string& out);
  void AppendStream(const std::string& bytes, std::string& out);
  void AppendToRun(char byte, std::string& out);
  void EndRun(std::string& out);
  // Cuts what the decoder strips from the start of the text.
  std::string Strip(std::string out);

  const Tokenizer& tokenizer_;
  const bool skip_special_;
  bool is_first_ = true;
  std::string held_;        // bytes that aren't text yet
  size_t num_checked_ = 0;  // bytes of held_ that are whole characters; only for a run
  bool run_is_broken_ = false;
  size_t num_to_strip_;
};

}  // namespace weft
