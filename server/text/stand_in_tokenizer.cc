#include "server/text/stand_in_tokenizer.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace weft {

absl::StatusOr<std::unique_ptr<Tokenizer>> MakeStandInTokenizer(int32_t vocab_size) {
  constexpr int32_t kNumBytes = 256;
  if (vocab_size < kNumBytes) {
    return absl::InvalidArgumentError(absl::StrCat("config.json: vocab_size: ", vocab_size,
                                                   " without a tokenizer.json: ", "the stand-in for it needs ",
                                                   kNumBytes));
  }
  nlohmann::json vocab = nlohmann::json::object();
  for (int32_t id = 0; id < vocab_size; ++id) {
    vocab[id < kNumBytes ? absl::StrFormat("<0x%02X>", id) : absl::StrCat(" token", id)] = id;
  }
  const nlohmann::json tree = {
      {"model",
       {{"type", "BPE"}, {"vocab", std::move(vocab)}, {"merges", nlohmann::json::array()}, {"byte_fallback", true}}},
      {"decoder", {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}}};
  return Tokenizer::FromJson(tree);
}

}  // namespace weft
