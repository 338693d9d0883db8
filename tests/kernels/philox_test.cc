#include "kernels/philox.h"

#include "gtest/gtest.h"

namespace weft {
namespace {

// The known-answer vectors of the Random123 library for philox4x32 with 10 rounds.
TEST(PhiloxTest, MatchesKnownAnswers) {
  struct Case {
    Philox4 counter;
    uint32_t key0, key1;
    Philox4 expected;
  };
  constexpr uint32_t kOnes = 0xffffffff;
  const Case cases[] = {
      {{{0, 0, 0, 0}}, 0, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{kOnes, kOnes, kOnes, kOnes}}, kOnes, kOnes, {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       0xa4093822,
       0x299f31d0,
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const Case& c : cases) {
    const Philox4 words = Philox4x32(c.counter, c.key0, c.key1);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(words.word[i], c.expected.word[i]) << i;
  }
}

TEST(PhiloxTest, EveryCoordinateOfADrawMatters) {
  const uint32_t base = SamplingWords(1, 2, 3, 4).word[0];
  EXPECT_NE(base, SamplingWords(2, 2, 3, 4).word[0]);
  EXPECT_NE(base, SamplingWords(1 | uint64_t{1} << 32, 2, 3, 4).word[0]);
  EXPECT_NE(base, SamplingWords(1, 3, 3, 4).word[0]);
  EXPECT_NE(base, SamplingWords(1, 2, 4, 4).word[0]);
  EXPECT_NE(base, SamplingWords(1, 2, 3 | int64_t{1} << 32, 4).word[0]);
  EXPECT_NE(base, SamplingWords(1, 2, 3, 5).word[0]);
}

TEST(PhiloxTest, UnitIntervalExcludesItsEnds) {
  EXPECT_GT(UnitInterval(0), 0);
  EXPECT_LT(UnitInterval(0xffffffff), 1);
}

}  // namespace
}  // namespace weft
