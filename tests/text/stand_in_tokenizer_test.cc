#include "server/text/stand_in_tokenizer.h"

#include "gtest/gtest.h"

namespace weft {
namespace {

TEST(StandInTokenizerTest, GivesEveryByteBackAndSpellsTheRest) {
  const auto tokenizer = MakeStandInTokenizer(1000);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 1000);
  const std::string text = "Weft: caf\u00e9 \U0001F9F5 token300";
  const std::vector<int32_t> ids = (*tokenizer)->Encode(text);
  EXPECT_EQ(ids.size(), text.size());
  EXPECT_EQ((*tokenizer)->Decode(ids, true), text);
  EXPECT_EQ((*tokenizer)->Decode({{256, 999}}, true), " token256 token999");
}

TEST(StandInTokenizerTest, NeedsATokenForEachByte) { EXPECT_FALSE(MakeStandInTokenizer(255).ok()); }

}  // namespace
}  // namespace weft
