#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "server/text/tokenizer.h"
#include "tests/fakes/temp_dir.h"

namespace weft {

// A character-level tokenizer.json as small as one can be: ids 0 to 5 are a, b, c, ab, <unk>, <s>.
inline nlohmann::json SmallTokenizerJson() {
  return nlohmann::json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
                      "normalized": false, "special": true}],
    "normalizer": null, "pre_tokenizer": null,
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}},
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "<unk>": 4}, "merges": ["a b"]}
  })");
}

// Writes tokenizer files into a directory of their own and loads them. `config` is not written if empty.
inline absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& json,
                                                                const std::string& config = "") {
  const TempDir dir;
  dir.Write("tokenizer.json", json);
  if (!config.empty()) dir.Write("tokenizer_config.json", config);
  return Tokenizer::Load(dir.path());
}

}  // namespace weft
