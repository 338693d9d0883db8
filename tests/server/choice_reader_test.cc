#include "server/choice_reader.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/api_error.h"
#include "server/text/tokenizer.h"

namespace weft {
namespace {

constexpr char kText[] = "The weft crosses the warp. \xF0\x9F\xA7\xB5 na\xC3\xAFve \xE7\xB9\x94\xE6\xA9\x9F; the end.";

class ChoiceReaderTest : public testing::Test {
 protected:
  ChoiceReaderTest()
      : tokenizer_(*Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/llama3")),
        ids_(tokenizer_->Encode(kText)) {}

  struct Result {
    std::string text;
    std::vector<int32_t> token_ids;
    std::vector<GeneratedToken> logprobs;
    Finish finish;
    int64_t num_tokens = 0;
    bool stopped_by_text = false;
  };

  // Reads `ids` in portions of `step`, then `event`.
  Result Read(ChoiceOptions options, size_t step, const FinishEvent& event) {
    const bool wants_logprobs = options.wants_logprobs;
    ChoiceReader reader(*tokenizer_, std::move(options));
    Result result;
    for (size_t i = 0; i <= ids_.size(); i += step) {
      TokenStream::Taken taken;
      const size_t end = std::min(ids_.size(), i + step);
      taken.tokens.assign(ids_.begin() + static_cast<std::ptrdiff_t>(i),
                          ids_.begin() + static_cast<std::ptrdiff_t>(end));
      if (wants_logprobs) {
        for (const int32_t id : taken.tokens)
          taken.details.push_back({.token = id, .logprob = -2, .top_logprobs = {{id, -2}}});
      }
      if (i + step > ids_.size()) taken.finish = event;
      const std::optional<Delta> delta = reader.Read(std::move(taken));
      if (!delta.has_value()) continue;
      result.text += delta->text;
      result.token_ids.insert(result.token_ids.end(), delta->token_ids.begin(), delta->token_ids.end());
      result.logprobs.insert(result.logprobs.end(), delta->logprobs.begin(), delta->logprobs.end());
      if (!delta->finish.has_value()) continue;
      result.finish = *delta->finish;
      break;
    }
    result.num_tokens = reader.num_tokens();
    result.stopped_by_text = reader.stopped_by_text();
    return result;
  }

  const std::unique_ptr<Tokenizer> tokenizer_;
  const std::vector<int32_t> ids_;
};

const FinishEvent kLength = {.reason = FinishReason::kLength, .stop_token = {}, .status = {}};

TEST_F(ChoiceReaderTest, PortionsDoNotChangeTheText) {
  for (const size_t step : {1, 2, 3, 7, 1000}) {
    const Result result = Read({}, step, kLength);
    EXPECT_EQ(result.text, kText);
    EXPECT_EQ(result.token_ids, ids_);
    EXPECT_EQ(result.num_tokens, static_cast<int64_t>(ids_.size()));
    EXPECT_EQ(result.finish.kind, StopKind::kLength);
  }
}

TEST_F(ChoiceReaderTest, CutsAtAStopStringAndDropsItsTokens) {
  for (const size_t step : {1, 3, 1000}) {
    const Result cut = Read({.wants_logprobs = true, .stop = {"warp", "warp."}}, step, kLength);
    EXPECT_EQ(cut.text, "The weft crosses the ");
    EXPECT_TRUE(cut.stopped_by_text);
    EXPECT_EQ(cut.finish.kind, StopKind::kStop);
    EXPECT_EQ(std::get<std::string>(cut.finish.stop_reason), "warp");
    EXPECT_EQ(cut.logprobs.size(), cut.token_ids.size());
    EXPECT_LT(cut.num_tokens, static_cast<int64_t>(ids_.size()));           // what was drawn later doesn't count
    EXPECT_GE(cut.num_tokens, static_cast<int64_t>(cut.token_ids.size()));  // what was drawn for the stop string does

    const Result kept = Read({.include_stop = true, .stop = {"warp"}}, step, kLength);
    EXPECT_EQ(kept.text, "The weft crosses the warp");
  }
}

TEST_F(ChoiceReaderTest, NeverShowsPartOfAStopStringOrOfACharacter) {
  ChoiceReader reader(*tokenizer_, {.stop = {"warp. \xF0\x9F\xA7\xB5"}});
  std::string text;
  for (const int32_t id : ids_) {
    TokenStream::Taken taken;
    taken.tokens = {id};
    const std::optional<Delta> delta = reader.Read(std::move(taken));
    if (!delta.has_value()) continue;
    text += delta->text;
    EXPECT_EQ(text.find("warp"), std::string::npos);
    if (delta->finish.has_value()) break;
  }
  EXPECT_EQ(text, "The weft crosses the ");
}

TEST_F(ChoiceReaderTest, StopStringsWaitForMinTokens) {
  const Result all = Read({.wants_logprobs = true, .stop = {"e"}}, 1, kLength);
  EXPECT_EQ(all.text, "Th");
  const size_t minimum = 3;
  const Result kept = Read({.wants_logprobs = true, .min_tokens = minimum, .stop = {"e"}}, 1, kLength);
  const std::string first = tokenizer_->Decode(absl::MakeConstSpan(ids_).first(minimum), true);
  ASSERT_NE(first.find('e'), std::string::npos);
  EXPECT_EQ(kept.text.substr(0, first.size()), first);
  EXPECT_EQ(kept.text.find('e', first.size()), std::string::npos);
  EXPECT_TRUE(kept.stopped_by_text);
}

TEST_F(ChoiceReaderTest, TheEndReleasesWhatWasHeldBack) {
  const Result result = Read({.stop = {"end.?"}}, 1, kLength);
  EXPECT_EQ(result.text, kText);
  EXPECT_EQ(result.token_ids, ids_);
}

TEST_F(ChoiceReaderTest, DescribesTokens) {
  const Result result = Read({.wants_logprobs = true}, 2, kLength);
  ASSERT_EQ(result.logprobs.size(), ids_.size());
  std::string bytes;
  for (size_t i = 0; i < ids_.size(); ++i) {
    EXPECT_EQ(result.logprobs[i].token.id, ids_[i]);
    EXPECT_EQ(result.logprobs[i].token.logprob, -2);
    ASSERT_EQ(result.logprobs[i].top_logprobs.size(), 1u);
    bytes += result.logprobs[i].token.bytes;
  }
  EXPECT_EQ(bytes, kText);
}

TEST_F(ChoiceReaderTest, NamesTheRequestsOwnStopTokenAndCountsIt) {
  const FinishEvent event = {.reason = FinishReason::kStop, .stop_token = 904, .status = {}};
  const Result own = Read({.stop_token_ids = {904}}, 4, event);
  EXPECT_EQ(own.finish.kind, StopKind::kStop);
  EXPECT_EQ(std::get<int32_t>(own.finish.stop_reason), 904);
  EXPECT_EQ(own.num_tokens, static_cast<int64_t>(ids_.size()) + 1);
  const Result end_of_sequence = Read({}, 4, event);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(end_of_sequence.finish.stop_reason));
}

TEST_F(ChoiceReaderTest, ErrorsKeepOurWordsAndHideOthers) {
  const absl::Status ours = ApiError(absl::StatusCode::kUnavailable, "shutting_down", "", "over");
  const Result told = Read({}, 4, {.reason = FinishReason::kError, .stop_token = {}, .status = ours});
  EXPECT_EQ(told.finish.kind, StopKind::kError);
  EXPECT_EQ(ErrorCode(told.finish.status), "shutting_down");
  const absl::Status secret = absl::InternalError("/secret/path");
  const Result hidden = Read({}, 4, {.reason = FinishReason::kError, .stop_token = {}, .status = secret});
  EXPECT_EQ(ErrorCode(hidden.finish.status), "internal_error");
  EXPECT_EQ(hidden.finish.status.message().find("secret"), absl::string_view::npos);
}

TEST(ChoiceReaderSpaceTest, ACompletionKeepsTheSpaceThatFollowsItsPrompt) {
  const auto tokenizer = *Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/metaspace");
  const std::vector<int32_t> prompt = tokenizer->Encode("the weft");
  std::vector<int32_t> whole = tokenizer->Encode("the weft and");
  ASSERT_GT(whole.size(), prompt.size());
  const std::vector<int32_t> rest(whole.begin() + static_cast<std::ptrdiff_t>(prompt.size()), whole.end());
  struct Case {
    std::optional<int32_t> continues_id;
    std::string text;
  };
  for (const Case& c : {Case{prompt.back(), " and"}, Case{std::nullopt, "and"}}) {
    ChoiceReader reader(*tokenizer, {.continues_id = c.continues_id});
    TokenStream::Taken taken;
    taken.tokens = rest;
    taken.finish = kLength;
    EXPECT_EQ(reader.Read(std::move(taken))->text, c.text);
  }
}

}  // namespace
}  // namespace weft
