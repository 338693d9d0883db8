#include "server/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "server/text/unicode.h"
#include "tests/text/tokenizer_fixture.h"

namespace weft {
namespace {

const std::string kFixtures = WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/";

class DetokenizerTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Load(kFixtures + GetParam());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

// Random ids give broken characters most of the time. However they arrive, the deltas are whole characters and add up
// to the text that all of them give at once, which other tests compare with the reference.
TEST_P(DetokenizerTest, DeltasAddUpToTheOneShotText) {
  std::mt19937 rng(7);
  std::vector<int32_t> bytes;
  for (int32_t id = 0; id < tokenizer_->vocab_size(); ++id) {
    if (tokenizer_->TokenBytes(id).size() == 1) bytes.push_back(id);
  }
  for (int i = 0; i < 3000; ++i) {
    std::vector<int32_t> ids(rng() % 24);
    for (int32_t& id : ids) {
      const bool one_byte = i % 2 == 0 && !bytes.empty();
      id = one_byte ? bytes[rng() % bytes.size()] : static_cast<int32_t>(rng() % 1000) - 10;  // some are no tokens
    }
    const bool skip_special = i % 3 == 0;
    IncrementalDetokenizer detokenizer(*tokenizer_, skip_special);
    std::string text;
    for (size_t pos = 0; pos < ids.size();) {
      const size_t size = std::min(ids.size() - pos, size_t{1} + rng() % 3);
      const std::string delta = detokenizer.Push(absl::MakeSpan(ids).subspan(pos, size));
      ASSERT_TRUE(IsValidUtf8(delta));
      text += delta;
      pos += size;
    }
    text += detokenizer.Finish();
    ASSERT_EQ(text, tokenizer_->Decode(ids, skip_special));
  }
}

// Byte by byte: text that is certain comes out at once.
TEST_P(DetokenizerTest, RestoresTextThatItEncoded) {
  const std::string text = "Ünïcode 漢字 👩‍👩‍👧‍👦 and\n\ttabs  ";
  for (const bool skip_special : {false, true}) {
    IncrementalDetokenizer detokenizer(*tokenizer_, skip_special);
    std::string restored;
    for (const int32_t id : tokenizer_->Encode(text)) restored += detokenizer.Push({id});
    restored += detokenizer.Finish();
    EXPECT_EQ(restored, text);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, DetokenizerTest, testing::Values("gpt2", "llama3", "qwen2", "sentencepiece"),
                         [](const auto& family) { return std::string(family.param); });

TEST(ByteStreamTest, EmitsACharacterWithItsLastByteAndBadBytesAtOnce) {
  auto tokenizer = Tokenizer::Load(kFixtures + "gpt2");
  ASSERT_TRUE(tokenizer.ok());
  const auto byte = [&](const char* spelling) { return *(*tokenizer)->TokenId(spelling); };
  const int32_t e2 = byte("â"), x82 = byte("Ĥ"), ac = byte("¬"), a = byte("a");  // E2 82 AC is the euro sign
  IncrementalDetokenizer detokenizer(**tokenizer, false);
  EXPECT_EQ(detokenizer.Push({e2}), "");
  EXPECT_EQ(detokenizer.Push({x82}), "");
  EXPECT_EQ(detokenizer.Push({ac}), "€");
  EXPECT_EQ(detokenizer.Push({ac}), "\uFFFD");
  EXPECT_EQ(detokenizer.Push({e2, a}), "\uFFFDa");
  EXPECT_EQ(detokenizer.Push({e2, x82}), "");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

TEST(ByteRunTest, HoldsARunWhileItIsTextAndReplacesEachByteOfABrokenOne) {
  auto tokenizer = Tokenizer::Load(kFixtures + "sentencepiece");
  ASSERT_TRUE(tokenizer.ok());
  const auto id = [&](const char* spelling) { return *(*tokenizer)->TokenId(spelling); };
  IncrementalDetokenizer detokenizer(**tokenizer, false);
  EXPECT_EQ(detokenizer.Push({id("▁"), id("a")}), "a");  // the prefix space is cut once
  EXPECT_EQ(detokenizer.Push({id("<0xC3>")}), "");
  EXPECT_EQ(detokenizer.Push({id("<0xA9>")}), "");
  EXPECT_EQ(detokenizer.Push({id("▁")}), "é ");
  EXPECT_EQ(detokenizer.Push({id("<0xC3>"), id("<0xA9>")}), "");
  EXPECT_EQ(detokenizer.Push({id("<0xFF>")}), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(detokenizer.Push({id("<0x41>")}), "\uFFFD");
  EXPECT_EQ(detokenizer.Push({id("a"), id("<0xE2>")}), "a");
  EXPECT_EQ(detokenizer.Finish(), "\uFFFD");
}

}  // namespace
}  // namespace weft
