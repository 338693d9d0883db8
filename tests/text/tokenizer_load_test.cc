// Bad tokenizer files: each is refused with the word that the catalogue of bad input has for it, and the field's name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/text/tokenizer_fixture.h"

namespace weft {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json Regex(const std::string& pattern) {
  return {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json AddedToken(int64_t id, const std::string& content) {
  return {{"id", id}, {"content", content}, {"special", true}};
}

json Nested(int depth) {
  json value = 1;
  for (int i = 0; i < depth; ++i) value = json::array({value});
  return value;
}

void MakeByteFallback(json& j, const std::string& odd_token) {
  j["model"]["byte_fallback"] = true;
  for (int byte = 0; byte < 256; ++byte) {
    char token[8];
    snprintf(token, sizeof(token), "<0x%02X>", byte);
    j["model"]["vocab"][token] = 6 + byte;
  }
  if (!odd_token.empty()) j["model"]["vocab"][odd_token] = 6 + 256;
}

struct Case {
  const char* id;  // in the catalogue
  const char* what;
  std::function<void(json&)> spoil;
  const char* code;
  const char* field;
};

class TokenizerLoadTest : public testing::Test {};

TEST_F(TokenizerLoadTest, RefusesSpoiledFields) {
  const std::vector<Case> cases = {
      {"T01", "deep", [](json& j) { j["extra"] = Nested(1000); }, "invalid", "extra"},
      {"T02", "model", [](json& j) { j["model"]["type"] = "Unigram"; }, "unsupported_component", "model.type"},
      {"T02", "pre-tokenizer",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "X"}};
       },
       "unsupported_component", "pre_tokenizer"},
      {"T02", "normalizer",
       [](json& j) {
         j["normalizer"] = {{"type", "NFKC"}};
       },
       "unsupported_component", "normalizer"},
      {"T02", "decoder",
       [](json& j) {
         j["decoder"] = {{"type", "CTC"}};
       },
       "unsupported_component", "decoder"},
      {"T02", "post-processor",
       [](json& j) {
         j["post_processor"] = {{"type", "Bert"}};
       },
       "unsupported_component", "post_processor"},
      {"T02", "no type", [](json& j) { j["decoder"] = json::object(); }, "invalid_component", "decoder.type"},
      {"T02", "dropout", [](json& j) { j["model"]["dropout"] = 0.1; }, "unsupported_component", "model.dropout"},
      {"T02", "suffix", [](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "unsupported_component",
       "end_of_word_suffix"},
      {"T02", "text after ByteLevel",
       [](json& j) {
         const json byte_level = {{"type", "ByteLevel"}};
         j["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {byte_level, {{"type", "Digits"}}}}};
       },
       "unsupported_component", "pre_tokenizer.pretokenizers[1]"},
      {"T03", "merge not in vocabulary",
       [](json& j) {
         j["model"]["merges"] = {"a b", "b c"};
       },
       "invalid_merge", "merges[1]"},
      {"T03", "part not in vocabulary", [](json& j) { j["model"]["merges"] = {"a x"}; }, "invalid_merge", "merges[0]"},
      {"T03", "longer than any token",
       [](json& j) {
         j["model"]["merges"] = json::array({json::array({"ab", "ab"})});
       },
       "invalid_merge", "merges[0]"},
      {"T04", "one part", [](json& j) { j["model"]["merges"] = {"ab"}; }, "invalid_merge", "merges[0]"},
      {"T04", "three parts", [](json& j) { j["model"]["merges"] = {"a b c"}; }, "invalid_merge", "merges[0]"},
      {"T04", "three elements",
       [](json& j) {
         j["model"]["merges"] = json::array({json::array({"a", "b", "c"})});
       },
       "invalid_merge", "merges[0]"},
      {"T04", "a number", [](json& j) { j["model"]["merges"] = {7}; }, "invalid_merge", "merges[0]"},
      {"T04", "no list", [](json& j) { j["model"].erase("merges"); }, "invalid_merge", "model.merges"},
      {"T05", "duplicate id", [](json& j) { j["model"]["vocab"]["c"] = 1; }, "invalid_vocab", "model.vocab"},
      {"T05", "gap", [](json& j) { j["added_tokens"][0]["id"] = 9; }, "invalid_vocab", "model.vocab"},
      {"T05", "negative id", [](json& j) { j["model"]["vocab"]["c"] = -1; }, "invalid_vocab", "model.vocab"},
      {"T05", "id 2^32", [](json& j) { j["model"]["vocab"]["c"] = 4294967296; }, "invalid_vocab", "model.vocab"},
      {"T05", "fraction", [](json& j) { j["model"]["vocab"]["c"] = 2.5; }, "invalid_vocab", "model.vocab"},
      {"T05", "no vocabulary", [](json& j) { j["model"].erase("vocab"); }, "invalid_vocab", "model.vocab"},
      {"T05", "list", [](json& j) { j["model"]["vocab"] = json::array({"a"}); }, "invalid_vocab", "model.vocab"},
      {"R-TOK", "long token", [](json& j) { j["model"]["vocab"][std::string(1025, 'a')] = 6; }, "invalid_token",
       "model.vocab"},
      {"T06", "nested quantifier", [](json& j) { j["pre_tokenizer"] = Regex("(a+)+"); }, "unsupported_regex",
       "pattern.Regex"},
      {"T06", "nested count", [](json& j) { j["pre_tokenizer"] = Regex("(?:a*b){2,}"); }, "unsupported_regex",
       "pattern"},
      {"T06", "lookbehind", [](json& j) { j["pre_tokenizer"] = Regex("(?<=a)b"); }, "unsupported_regex", "pattern"},
      {"T06", "backreference", [](json& j) { j["pre_tokenizer"] = Regex(R"((a)\1)"); }, "unsupported_regex", "pattern"},
      {"T06", "recursion", [](json& j) { j["pre_tokenizer"] = Regex("(?R)"); }, "unsupported_regex", "pattern"},
      {"T06", "unclosed", [](json& j) { j["pre_tokenizer"] = Regex("(a"); }, "unsupported_regex", "pattern"},
      {"T06", "bad range", [](json& j) { j["pre_tokenizer"] = Regex("[z-a]"); }, "unsupported_regex", "pattern"},
      {"T06", "matches nothing", [](json& j) { j["pre_tokenizer"] = Regex("a*"); }, "unsupported_regex", "pattern"},
      {"T06", "deep groups", [](json& j) { j["pre_tokenizer"] = Regex(std::string(3000, '(')); }, "unsupported_regex",
       "pattern"},
      {"T07", "unknown special", [](json& j) { j["post_processor"]["special_tokens"] = json::object(); },
       "invalid_postprocessor", "single[0]"},
      {"T07", "unknown id", [](json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {77}; },
       "invalid_postprocessor", "ids[0]"},
      {"T07", "other id", [](json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {1}; },
       "invalid_postprocessor", "ids[0]"},
      {"T08", "stride",
       [](json& j) {
         j["truncation"] = {{"max_length", 8}, {"stride", 8}};
       },
       "invalid_truncation", "truncation.stride"},
      {"T08", "padding",
       [](json& j) {
         j["padding"] = {{"strategy", {{"Fixed", 2147483648}}}};
       },
       "invalid_truncation", "padding"},
      {"T09", "Strip beyond any token",
       [](json& j) {
         const json strip = {{"type", "Strip"}, {"content", " "}, {"start", 99999}, {"stop", 0}};
         j["decoder"] = {{"type", "Sequence"}, {"decoders", {{{"type", "Fuse"}}, strip}}};
       },
       "invalid_component", "decoders[1].start"},
      {"T09", "FixedLength",
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "FixedLength"}, {"length", 0}};
       },
       "invalid_component", "pre_tokenizer.length"},
      {"T10", "charsmap",
       [](json& j) {
         j["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "!!"}};
       },
       "invalid_normalizer", "precompiled_charsmap"},
      {"T11", "empty", [](json& j) { j["added_tokens"][0]["content"] = ""; }, "invalid_added_token",
       "added_tokens[0].content"},
      {"T11", "id clash", [](json& j) { j["added_tokens"][0]["id"] = 2; }, "invalid_added_token", "added_tokens"},
      {"T11", "other id than the vocabulary's", [](json& j) { j["added_tokens"].push_back(AddedToken(6, "ab")); },
       "invalid_added_token", "added_tokens"},
      {"T11", "twice", [](json& j) { j["added_tokens"].push_back(AddedToken(6, "<s>")); }, "invalid_added_token",
       "added_tokens[1]"},
      {"T11", "negative id", [](json& j) { j["added_tokens"][0]["id"] = -5; }, "invalid_added_token",
       "added_tokens[0].id"},
      {"T11", "too many",
       [](json& j) {
         for (int i = 0; i < 70000; ++i) j["added_tokens"].push_back(AddedToken(6 + i, "t" + std::to_string(i)));
       },
       "invalid_added_token", "added_tokens"},
      {"T12", "negative byte", [](json& j) { MakeByteFallback(j, "<0x-1>"); }, "invalid_token", "model.vocab"},
      {"T12", "byte that is no number", [](json& j) { MakeByteFallback(j, "<0xGG>"); }, "invalid_token", "model.vocab"},
      {"T12", "missing bytes", [](json& j) { j["model"]["byte_fallback"] = true; }, "invalid_vocab", "model.vocab"},
      {"T13", "unknown token", [](json& j) { j["model"]["unk_token"] = "<none>"; }, "invalid_vocab", "model.unk_token"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(std::string(c.id) + " " + c.what);
    json spoiled = SmallTokenizerJson();
    c.spoil(spoiled);
    const absl::Status status = LoadTokenizer(spoiled.dump()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("tokenizer.json: ") + c.code + ": "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.field));
  }
}

TEST_F(TokenizerLoadTest, RefusesSpoiledBytes) {
  const std::string good = SmallTokenizerJson().dump();
  const auto with = [&good](const std::string& from, const std::string& to) {
    std::string bytes = good;
    return bytes.replace(bytes.find(from), from.size(), to);
  };
  const std::vector<std::tuple<const char*, std::string, const char*>> cases = {
      {"T01 empty", "", "invalid"},
      {"T01 not JSON", "not JSON", "invalid"},
      {"T01 cut off", good.substr(0, good.size() / 2), "invalid"},
      {"T01 no object", "[]", "invalid"},
      {"T01 a million brackets", std::string(1'000'000, '['), "invalid"},
      {"T01 key twice", with("\"version\":", "\"model\":1,\"version\":"), "invalid"},
      {"T05 token twice", with("\"ab\":3", "\"ab\":3,\"a\":0"), "invalid_vocab"},
      {"T11 content not UTF-8", with("\"content\":\"<s>\"", "\"content\":\"\xFF\""), "invalid_added_token"},
      {"T11 content a lone surrogate", with("\"content\":\"<s>\"", "\"content\":\"\\ud800\""), "invalid_added_token"},
  };
  for (const auto& [what, bytes, code] : cases) {
    SCOPED_TRACE(what);
    const absl::Status status = LoadTokenizer(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("tokenizer.json: ") + code + ": "));
  }
}

TEST_F(TokenizerLoadTest, RefusesAHugeFileWithoutReadingIt) {
  const TempDir dir;
  dir.Write("tokenizer.json", "{}");
  std::filesystem::resize_file(dir.File("tokenizer.json"), uintmax_t{1} << 30);  // sparse
  const absl::Status status = Tokenizer::Load(dir.path()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json: too_large: "));
}

TEST_F(TokenizerLoadTest, SaysWhichFileIsMissing) {
  const absl::Status status = Tokenizer::Load("/nonexistent").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
}

TEST_F(TokenizerLoadTest, ReadsTokenNamesOfTheConfig) {
  const std::string file = SmallTokenizerJson().dump();
  const auto named = LoadTokenizer(file, R"({"bos_token": {"content": "<s>"}, "eos_token": "ab"})");
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_EQ((*named)->bos_token(), "<s>");
  EXPECT_EQ((*named)->eos_token(), "ab");
  const auto unnamed = LoadTokenizer(file, R"({"bos_token": null})");
  ASSERT_TRUE(unnamed.ok()) << unnamed.status();
  EXPECT_EQ((*unnamed)->bos_token(), "");
  for (const char* config :
       {R"({"bos_token": "<no>"})", R"({"eos_token": {"content": "<no>"}})", R"({"eos_token": 2})"}) {
    const absl::Status status = LoadTokenizer(file, config).status();
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer_config.json: inconsistent: ")) << config;  // T14
  }
}

TEST_F(TokenizerLoadTest, ComparesItselfWithTheModel) {
  const auto tokenizer = LoadTokenizer(SmallTokenizerJson().dump(), R"({"bos_token": "<s>"})");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE((*tokenizer)->CheckModel(6, 5).ok());
  EXPECT_TRUE((*tokenizer)->CheckModel(64, std::nullopt).ok());
  EXPECT_THAT(std::string((*tokenizer)->CheckModel(5, 5).message()), HasSubstr("vocab_mismatch"));  // T05, T15
  EXPECT_THAT(std::string((*tokenizer)->CheckModel(6, 4).message()), HasSubstr("inconsistent"));    // T14
}

}  // namespace
}  // namespace weft
