#include "server/text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "server/text/pretokenizer_pattern.h"
#include "server/text/pretokenizer_splitters.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

using nlohmann::json;
using testing::ElementsAre;

std::vector<std::string> Split(const json& config, const std::string& text) {
  const auto pretokenizer = Pretokenizer::FromJson(JsonNode(config, "pre_tokenizer"));
  if (!pretokenizer.ok()) return {std::string(pretokenizer.status().message())};
  const PieceText pieces = pretokenizer->Apply(text, /*starts_prompt=*/true);
  std::vector<std::string> out;
  for (const PieceText::Piece& piece : pieces.pieces) out.emplace_back(pieces.Bytes(piece));
  return out;
}

json SplitOn(const char* behavior, const char* literal, bool invert = false) {
  return {{"type", "Split"}, {"pattern", {{"String", literal}}}, {"behavior", behavior}, {"invert", invert}};
}

TEST(PretokenizerTest, TreatsMatchesAsTheBehaviorSays) {
  const std::string text = "-a--b-";
  EXPECT_THAT(Split(SplitOn("Isolated", "-"), text), ElementsAre("-", "a", "-", "-", "b", "-"));
  EXPECT_THAT(Split(SplitOn("Removed", "-"), text), ElementsAre("a", "b"));
  EXPECT_THAT(Split(SplitOn("Contiguous", "-"), text), ElementsAre("-", "a", "--", "b", "-"));
  EXPECT_THAT(Split(SplitOn("MergedWithPrevious", "-"), text), ElementsAre("-", "a-", "-", "b-"));
  EXPECT_THAT(Split(SplitOn("MergedWithNext", "-"), text), ElementsAre("-a", "-", "-b", "-"));
  EXPECT_THAT(Split(SplitOn("Removed", "-", /*invert=*/true), text), ElementsAre("-", "-", "-", "-"));
}

// Text that the patterns' alternatives compete for.
std::string RandomText(std::mt19937& rng) {
  static const char* const kParts[] = {"a",  "B",      "\u017f", "s",  "'",      "re",    "LL", "1",
                                       "22", "\u0661", " ",      "  ", "\t",     "\n",    "\r", "\u00a0",
                                       ".",  "!?",     "\u0301", "_",  "\u6f22", "\u2028"};
  std::string text;
  for (size_t n = rng() % 14; n > 0; --n) text += kParts[rng() % std::size(kParts)];
  return text;
}

std::vector<std::string> Pieces(const Matcher& matcher, const std::string& text) {
  std::vector<Match> matches;
  matcher(text, matches);
  std::vector<std::string> out;
  for (const Match& match : matches) out.push_back(text.substr(match.begin, match.end - match.begin));
  return out;
}

TEST(SplitterTest, MatchesWhatABacktrackingEngineMatches) {
  const char* const kTail = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string kHead = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})";
  const std::string patterns[] = {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                                  kHead + "{1,3}" + kTail, kHead + kTail};
  std::mt19937 rng(5);
  for (const std::string& pattern : patterns) {
    const std::optional<Matcher> splitter = FindSplitter(pattern);
    ASSERT_TRUE(splitter.has_value()) << pattern;
    const absl::StatusOr<Matcher> engine = CompilePattern(pattern);
    ASSERT_TRUE(engine.ok()) << engine.status();
    for (int i = 0; i < 20000; ++i) {
      const std::string text = RandomText(rng);
      ASSERT_EQ(Pieces(*splitter, text), Pieces(*engine, text)) << pattern << "\n'" << text << "'";
    }
  }
}

TEST(PatternTest, AcceptsTheCommonLanguage) {
  for (const char* pattern :
       {"a+", "(?:a|b)+", "[^a-z\\p{Lu}]?x{2,3}", "\\s+(?=\\S)", "a++b", "\\.\\[", "(?i:ab)*c", "a{2,}"}) {
    EXPECT_TRUE(ScreenPattern(pattern).ok()) << pattern << ScreenPattern(pattern);
  }
}

TEST(PatternTest, RefusesTheRest) {
  for (const char* pattern :
       {"(a+)+", "((a*)b)*", "(?:(?:a{4}))+", "(a)\\1",      "\\k<x>", "(?<x>a)", "(?<=a)b", "(?<!a)b",  "(?R)",
        "(?1)",  "(?(1)a)",  "(*ACCEPT)",     "(?>a)",       "^a",     "a$",      "\\bword", "\\w+",     "\\X",
        "\\h",   "\\p{Han}", "\\pL",          "[[:alpha:]]", "[a[b]]", "[a&&b]",  "[]a]",    "[a",       "(a",
        "a)",    "a{,3}",    "a{2,3",         "a{99999}",    "a**",    "*a",      "a\\",     "x{1,2}{3}"}) {
    EXPECT_FALSE(ScreenPattern(pattern).ok()) << pattern;
  }
}

// Beyond the bound a piece is cut, at a character; nothing is lost and nothing hangs.
TEST(PatternTest, BoundsAMatch) {
  const absl::StatusOr<Matcher> matcher = CompilePattern("a*b|\\p{L}+");
  ASSERT_TRUE(matcher.ok()) << matcher.status();
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "\u6f22";
  std::string joined;
  for (const std::string& piece : Pieces(*matcher, text)) {
    EXPECT_LE(piece.size(), size_t{16} << 10);
    EXPECT_TRUE(IsValidUtf8(piece));
    joined += piece;
  }
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace weft
