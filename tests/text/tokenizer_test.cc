#include "server/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/text/tokenizer_fixture.h"

namespace weft {
namespace {

using nlohmann::json;
using testing::Each;
using testing::ElementsAre;
using testing::Not;

using Ids = std::vector<int32_t>;

const char* const kFamilies[] = {"gpt2", "gpt2_prefix", "llama3", "qwen2", "cased", "sentencepiece", "metaspace"};

std::unique_ptr<Tokenizer> LoadFamily(const std::string& family) {
  auto tokenizer = Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/" + family);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::vector<int32_t> SpecialIds(const Tokenizer& tokenizer) {
  Ids ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsSpecial(id)) ids.push_back(id);
  }
  return ids;
}

TEST(SpecialTokenTest, RequestDataNeverYieldsOne) {
  for (const char* family : kFamilies) {
    SCOPED_TRACE(family);
    const auto tokenizer = LoadFamily(family);
    const Ids special_ids = SpecialIds(*tokenizer);
    ASSERT_FALSE(special_ids.empty());
    for (const int32_t special : special_ids) {
      const std::string spelling(tokenizer->Spelling(special));
      for (const std::string& data : {spelling, absl::StrCat("x ", spelling, " y"), absl::StrCat(spelling, spelling)}) {
        for (const Ids& ids :
             {tokenizer->Encode(data), tokenizer->EncodeSegments({{"Hi ", true}, {data, false}, {"!", true}})}) {
          // <unk> is how an unknown character reads, so it may stand for one; no other special token may appear.
          for (const int32_t id : ids)
            EXPECT_TRUE(!tokenizer->IsSpecial(id) || id == tokenizer->TokenId("<unk>")) << data;
        }
      }
      EXPECT_THAT(tokenizer->EncodeSegments({{"Hi ", true}, {spelling, true}}), testing::Contains(special)) << spelling;
    }
  }
}

TEST(SpecialTokenTest, NeedsAllOfItsTextTrusted) {
  const auto tokenizer = LoadFamily("llama3");
  const int32_t eot = *tokenizer->TokenId("<|eot_id|>");
  const Ids whole = tokenizer->EncodeSegments({{"<|eot_id|>", true}});
  EXPECT_THAT(whole, ElementsAre(eot));
  EXPECT_EQ(tokenizer->EncodeSegments({{"<|eot", true}, {"_id|>", true}}), whole);
  EXPECT_THAT(tokenizer->EncodeSegments({{"<|eot", true}, {"_id|>", false}}), Each(Not(eot)));
  EXPECT_THAT(tokenizer->EncodeSegments({{"<|eot", false}, {"_id|>", true}}), Each(Not(eot)));
}

// A special token may stand in the model's own vocabulary, within reach of merges or of whole-piece lookup.
TEST(SpecialTokenTest, IsOutOfReachOfMerges) {
  for (const bool ignore_merges : {false, true}) {
    json file = SmallTokenizerJson();
    file["model"]["ignore_merges"] = ignore_merges;
    file["added_tokens"].push_back({{"id", 3}, {"content", "ab"}, {"special", true}});
    const auto tokenizer = LoadTokenizer(file.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_THAT((*tokenizer)->Encode("ab"), ElementsAre(0, 1));
    EXPECT_THAT((*tokenizer)->EncodeSegments({{"ab", true}}), ElementsAre(3));
  }
}

// Data before or behind a control token must not be able to disguise it as a part of a longer one.
TEST(SpecialTokenTest, DataCannotHideTheTemplatesOwn) {
  json file = SmallTokenizerJson();
  for (const char* content : {"<s>a", "b<s>"}) {
    file["added_tokens"].push_back({{"id", file["added_tokens"].size() + 5}, {"content", content}, {"special", true}});
  }
  const auto tokenizer = LoadTokenizer(file.dump());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->EncodeSegments({{"<s>", true}, {"a", false}}), ElementsAre(5, 0));
  EXPECT_THAT((*tokenizer)->EncodeSegments({{"b", false}, {"<s>", true}}), ElementsAre(1, 5));
  EXPECT_THAT((*tokenizer)->EncodeSegments({{"<s>a", true}}), ElementsAre(6));
}

// Old Llama files mark <s> as normalized: it is looked for after normalisation, and trust has to come that far.
TEST(SpecialTokenTest, TrustSurvivesNormalisation) {
  const auto tokenizer = LoadFamily("sentencepiece");
  const int32_t extra = *tokenizer->TokenId("<extra>");
  EXPECT_THAT(tokenizer->EncodeSegments({{"a ", true}, {"<extra>", true}}), testing::Contains(extra));
  EXPECT_THAT(tokenizer->EncodeSegments({{"a ", true}, {"<extra>", false}}), Each(Not(extra)));
  EXPECT_THAT(tokenizer->EncodeSegments({{"a <ex", true}, {"tra>", false}}), Each(Not(extra)));
}

TEST(TokenizerTest, ReadsInvalidUtf8AsReplacementCharacters) {
  for (const char* family : kFamilies) {
    const auto tokenizer = LoadFamily(family);
    EXPECT_EQ(tokenizer->Encode("a\xFF\xE2\x82z\xED\xA0\x80"), tokenizer->Encode("a\uFFFD\uFFFDz\uFFFD\uFFFD\uFFFD"));
  }
}

TEST(TokenizerTest, KeepsNulBytes) {
  const auto tokenizer = LoadFamily("gpt2");
  const std::string text("a\0b", 3);
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text), false), text);
}

TEST(TokenizerTest, EncodesTheSameOnManyThreads) {
  const auto tokenizer = LoadFamily("qwen2");
  std::string text;
  for (int i = 0; i < 200; ++i) absl::StrAppend(&text, "The e\u0301 quick ", i, " \u6f22\u5b57 fox\n");
  const Ids expected = tokenizer->Encode(text);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) threads.emplace_back([&] { result = tokenizer->Encode(text); });
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(results, Each(expected));
}

// Merging by definition: the lowest rank, leftmost first, one at a time.
Ids MergeNaively(const json& file, const std::string& text) {
  std::vector<std::string> symbols;
  for (const char c : text) symbols.emplace_back(1, c);
  while (true) {
    size_t best_rank = file["model"]["merges"].size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        const json& merge = file["model"]["merges"][rank];
        if (merge[0] == symbols[i] && merge[1] == symbols[i + 1]) {
          best_rank = rank;
          best = i;
        }
      }
    }
    if (best_rank == file["model"]["merges"].size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) ids.push_back(file["model"]["vocab"][symbol].get<int32_t>());
  return ids;
}

TEST(BpeTest, MergesByRankThenFromTheLeft) {
  std::mt19937 rng(3);
  for (int round = 0; round < 40; ++round) {
    json file = SmallTokenizerJson();
    json& vocab = file["model"]["vocab"];
    vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"<unk>", 3}};
    std::vector<std::string> tokens = {"a", "b", "c"};
    file["model"]["merges"] = json::array();
    for (int i = 0; i < 12; ++i) {
      const std::string left = tokens[rng() % tokens.size()], right = tokens[rng() % tokens.size()];
      file["model"]["merges"].push_back({left, right});
      if (vocab.contains(left + right)) continue;
      vocab[left + right] = vocab.size();
      tokens.push_back(left + right);
    }
    // A pair that is listed twice has its last rank; the naive oracle knows only unique lists.
    json unique = json::array();
    for (const json& merge : file["model"]["merges"]) {
      if (std::find(unique.begin(), unique.end(), merge) == unique.end()) unique.push_back(merge);
    }
    file["model"]["merges"] = unique;
    file["added_tokens"] = json::array();
    file["post_processor"] = nullptr;
    const auto tokenizer = LoadTokenizer(file.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (int i = 0; i < 20; ++i) {
      std::string text(rng() % 40, ' ');
      for (char& c : text) c = static_cast<char>('a' + rng() % 3);
      ASSERT_EQ((*tokenizer)->Encode(text), MergeNaively(file, text)) << text << file["model"]["merges"];
    }
  }
}

double CpuSeconds(const Tokenizer& tokenizer, const std::string& unit, size_t num_bytes) {
  std::string text;
  while (text.size() < num_bytes) text += unit;
  const std::clock_t begin = std::clock();
  tokenizer.Encode(text);
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

// Four times the text may take a little more than four times as long; anything quadratic takes sixteen times.
TEST(HostileTextTest, CostsNoMoreThanItsLength) {
  const std::string units[] = {"a", "^", " ", "\u0301", "\u6f22", "\u0301\u0323", "<", "\n", "ab"};
  for (const char* family : {"llama3", "qwen2", "sentencepiece"}) {
    const auto tokenizer = LoadFamily(family);
    for (const std::string& unit : units) {
      const double small = CpuSeconds(*tokenizer, unit, 32 << 10);
      const double large = CpuSeconds(*tokenizer, unit, 128 << 10);
      EXPECT_LT(large, 10 * small + 0.02) << family << " '" << unit << "'";
    }
  }
}

}  // namespace
}  // namespace weft
