#include "server/text/stop_matcher.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

namespace weft {
namespace {

struct Outcome {
  std::string text;
  std::optional<size_t> stop;
};

// Feeds `text` in parts of at most `max_part` bytes.
Outcome Feed(const std::vector<std::string>& stops, const std::string& text, bool include_stop, std::mt19937& rng,
             size_t max_part) {
  StopMatcher matcher(stops, include_stop);
  Outcome outcome;
  for (size_t pos = 0; pos < text.size();) {
    const size_t size = std::min(text.size() - pos, 1 + rng() % max_part);
    const StopMatcher::Result result = matcher.Push(absl::string_view(text).substr(pos, size));
    outcome.text += result.text;
    if (result.stop.has_value()) outcome.stop = result.stop;
    pos += size;
  }
  outcome.text += matcher.Finish();
  return outcome;
}

// By the definition: the match that ends first, of those the longest, of those the first.
Outcome Naive(const std::vector<std::string>& stops, const std::string& text, bool include_stop) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> found;
    for (size_t i = 0; i < stops.size(); ++i) {
      const std::string& stop = stops[i];
      if (stop.empty() || stop.size() > end || text.compare(end - stop.size(), stop.size(), stop) != 0) continue;
      if (!found.has_value() || stop.size() > stops[*found].size()) found = i;
    }
    if (found.has_value()) return {text.substr(0, include_stop ? end : end - stops[*found].size()), found};
  }
  return {text, std::nullopt};
}

TEST(StopMatcherTest, AgreesWithNaiveSearchOnRandomText) {
  std::mt19937 rng(1);
  const auto random_text = [&rng](size_t max_size, unsigned letters) {
    std::string text(rng() % (max_size + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + rng() % letters);
    return text;
  };
  int num_matched = 0;
  for (int i = 0; i < 20000; ++i) {
    const unsigned letters = 2 + rng() % 3;
    std::vector<std::string> stops(rng() % 4);
    for (std::string& stop : stops) stop = random_text(6, letters);
    const std::string text = random_text(40, letters);
    const bool include_stop = rng() % 2 == 0;
    const Outcome expected = Naive(stops, text, include_stop);
    const Outcome actual = Feed(stops, text, include_stop, rng, 5);
    ASSERT_EQ(actual.text, expected.text) << text;
    ASSERT_EQ(actual.stop, expected.stop) << text;
    num_matched += expected.stop.has_value() ? 1 : 0;
  }
  EXPECT_GT(num_matched, 5000);
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"</s>", "\n\n"});
  EXPECT_EQ(matcher.Push("one\n").text, "one");
  EXPECT_EQ(matcher.Push("two <").text, "\ntwo ");
  EXPECT_EQ(matcher.Push("/b>").text, "</b>");
  const StopMatcher::Result last = matcher.Push("!\n\nmore");
  EXPECT_EQ(last.text, "!");
  EXPECT_EQ(last.stop, 1u);
  EXPECT_EQ(matcher.Push("</s>").text, "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcherTest, LetsOutWhatItHeldAtTheEnd) {
  StopMatcher matcher({"stop"});
  EXPECT_EQ(matcher.Push("don't sto").text, "don't ");
  EXPECT_EQ(matcher.Finish(), "sto");
}

}  // namespace
}  // namespace weft
