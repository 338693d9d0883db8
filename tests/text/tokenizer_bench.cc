// What hostile text costs: 1 MB of one unit, by family. Prints a table; --help is not needed, there are no options.
#include <cstdio>
#include <ctime>
#include <string>

#include "server/text/tokenizer.h"

namespace {

double Seconds(const weft::Tokenizer& tokenizer, const std::string& unit) {
  std::string text;
  while (text.size() < (size_t{1} << 20)) text += unit;
  const std::clock_t begin = std::clock();
  tokenizer.Encode(text);
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

}  // namespace

int main() {
  const std::pair<const char*, std::string> units[] = {{"a", "a"},
                                                       {"space", " "},
                                                       {"newline", "\n"},
                                                       {"digit", "7"},
                                                       {"combining accent", "\u0301"},
                                                       {"Han", "\u6f22"},
                                                       {"prose", "The weft crosses the warp. "}};
  std::printf("| 1 MB of |");
  for (const char* family : {"llama3", "qwen2", "sentencepiece"}) std::printf(" %s |", family);
  std::printf("\n|---|---|---|---|\n");
  for (const auto& [name, unit] : units) {
    std::printf("| %s |", name);
    for (const char* family : {"llama3", "qwen2", "sentencepiece"}) {
      const auto tokenizer = weft::Tokenizer::Load(std::string(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/") + family);
      if (!tokenizer.ok()) return 1;
      std::printf(" %.0f ms |", 1000 * Seconds(**tokenizer, unit));
    }
    std::printf("\n");
  }
}
