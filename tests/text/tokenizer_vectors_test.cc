// What the `tokenizers` package does with 12,600 strings and 1,400 sequences of random ids, over seven trained
// tokenizers: tests/fixtures/tokenizers/make_vectors.py wrote the expectations.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "server/text/detokenizer.h"
#include "server/text/tokenizer.h"
#include "tests/text/gzip_file.h"

namespace weft {
namespace {

using Ids = std::vector<int32_t>;

const std::string kFixtures = WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/";

class TokenizerVectorsTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string dir = kFixtures + GetParam();
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Load(dir);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    const std::string lines = ReadGzip(dir + "/vectors.jsonl.gz");
    for (const absl::string_view line : absl::StrSplit(lines, '\n', absl::SkipEmpty())) {
      rows_.push_back(nlohmann::json::parse(line.begin(), line.end()));
    }
    ASSERT_EQ(rows_.size(), 2000u);
  }

  // The value of a key that is left out where it equals another.
  static nlohmann::json ValueOr(const nlohmann::json& row, const char* key, const char* otherwise) {
    return row.contains(key) ? row[key] : row[otherwise];
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<nlohmann::json> rows_;
};

TEST_P(TokenizerVectorsTest, EncodesTrustedTextAsTheReferenceDoes) {
  for (const nlohmann::json& row : rows_) {
    if (!row.contains("text")) continue;
    EXPECT_EQ(tokenizer_->EncodeSegments({{row["text"].get<std::string>(), true}}), row["ids"].get<Ids>()) << row;
  }
}

TEST_P(TokenizerVectorsTest, EncodesRequestDataAsTheReferenceDoesWithoutSpecialTokens) {
  for (const nlohmann::json& row : rows_) {
    if (!row.contains("text")) continue;
    const Ids plain = tokenizer_->Encode(row["text"].get<std::string>());
    EXPECT_EQ(plain, ValueOr(row, "plain", "ids").get<Ids>()) << row;
  }
}

TEST_P(TokenizerVectorsTest, AddsThePromptTemplate) {
  int num_rows = 0;
  for (const nlohmann::json& row : rows_) {
    if (!row.contains("prompt")) continue;
    ++num_rows;
    EXPECT_EQ(tokenizer_->AddSpecial(row["ids"].get<Ids>()), row["prompt"].get<Ids>()) << row;
  }
  EXPECT_GT(num_rows, 50);
}

TEST_P(TokenizerVectorsTest, DecodesAsTheReferenceDoes) {
  for (const nlohmann::json& row : rows_) {
    const Ids ids = row["ids"].get<Ids>();
    const nlohmann::json decoded = ValueOr(row, "decoded", "text");
    EXPECT_EQ(tokenizer_->Decode(ids, /*skip_special=*/false), decoded.get<std::string>()) << row;
    const std::string skipped =
        row.contains("skipped") ? row["skipped"].get<std::string>() : decoded.get<std::string>();
    EXPECT_EQ(tokenizer_->Decode(ids, /*skip_special=*/true), skipped) << row;
  }
}

// A segment border inside plain text must not show: the same text cut anywhere gives the same ids.
TEST_P(TokenizerVectorsTest, SegmentBordersDoNotShow) {
  size_t cut = 0;
  for (const nlohmann::json& row : rows_) {
    if (!row.contains("text")) continue;
    const std::string text = row["text"].get<std::string>();
    cut = (cut * 31 + 7) % (text.size() + 1);
    while (cut < text.size() && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) ++cut;
    const std::vector<TextSegment> trusted = {{text.substr(0, cut), true}, {text.substr(cut), true}};
    EXPECT_EQ(tokenizer_->EncodeSegments(trusted), row["ids"].get<Ids>()) << row;
    const std::vector<TextSegment> plain = {{text.substr(0, cut), false}, {text.substr(cut), false}};
    EXPECT_EQ(tokenizer_->EncodeSegments(plain), ValueOr(row, "plain", "ids").get<Ids>()) << row;
  }
}

TEST_P(TokenizerVectorsTest, MaxTokenBytesBoundsTheNumberOfTokens) {
  for (const nlohmann::json& row : rows_) {
    if (!row.contains("text")) continue;
    const size_t max_bytes = row["ids"].size() * static_cast<size_t>(tokenizer_->max_token_bytes());
    EXPECT_LE(row["text"].get<std::string>().size(), max_bytes) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerVectorsTest,
                         testing::Values("gpt2", "gpt2_prefix", "llama3", "qwen2", "cased", "sentencepiece",
                                         "metaspace"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace weft
