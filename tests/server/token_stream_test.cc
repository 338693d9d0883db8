#include "server/token_stream.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/server/fake_serving.h"

namespace weft {
namespace {

class ManualClock final : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::UnixEpoch();
};

class TokenStreamTest : public testing::Test {
 protected:
  TokenStream MakeStream(bool wants_logprobs = false) {
    return TokenStream(waker_, clock_.now, wants_logprobs, clock_, metrics_);
  }

  ManualClock clock_;
  Metrics metrics_;
  WakeCounter wakes_;
  std::shared_ptr<StreamWaker> waker_ = std::make_shared<StreamWaker>(wakes_.Wake());
};

TEST_F(TokenStreamTest, GivesEachTokenOnceThenTheFinishOnce) {
  TokenStream stream = MakeStream();
  stream.Push({.token = 5});
  stream.Push({.token = 6});
  EXPECT_EQ(stream.Take().tokens, (std::vector<int32_t>{5, 6}));
  stream.Push({.token = 7});
  stream.Finish({.reason = FinishReason::kLength, .stop_token = {}, .status = {}});
  TokenStream::Taken taken = stream.Take();
  EXPECT_EQ(taken.tokens, (std::vector<int32_t>{7}));
  ASSERT_TRUE(taken.finish.has_value());
  EXPECT_EQ(taken.finish->reason, FinishReason::kLength);
  taken = stream.Take();
  EXPECT_TRUE(taken.tokens.empty());
  EXPECT_FALSE(taken.finish.has_value());
}

TEST_F(TokenStreamTest, WakesOnceUntilTheReaderLooksAgain) {
  TokenStream first = MakeStream();
  TokenStream second = MakeStream();
  first.Push({.token = 1});
  first.Push({.token = 2});
  second.Push({.token = 3});
  EXPECT_EQ(wakes_.count(), 1);
  waker_->Arm();
  second.Push({.token = 4});
  EXPECT_EQ(wakes_.count(), 2);
  waker_->Arm();
  waker_->Disarm();
  second.Push({.token = 5});
  EXPECT_EQ(wakes_.count(), 2);
}

TEST_F(TokenStreamTest, KeepsLogprobsOnlyWhenAskedTo) {
  TokenStream plain = MakeStream(false);
  TokenStream detailed = MakeStream(true);
  for (TokenStream* stream : {&plain, &detailed}) stream->Push({.token = 1, .logprob = -0.5f});
  EXPECT_TRUE(plain.Take().details.empty());
  const TokenStream::Taken taken = detailed.Take();
  ASSERT_EQ(taken.details.size(), 1u);
  EXPECT_EQ(taken.details[0].logprob, -0.5f);
}

TEST_F(TokenStreamTest, AnAbortIsTheEnd) {
  TokenStream stream = MakeStream();
  stream.Push({.token = 1});
  stream.Abort(absl::UnavailableError("over"));
  EXPECT_TRUE(stream.Cancelled());
  stream.Push({.token = 2});
  stream.Finish({.reason = FinishReason::kCancelled, .stop_token = {}, .status = {}});
  TokenStream::Taken taken = stream.Take();
  EXPECT_EQ(taken.tokens, (std::vector<int32_t>{1}));
  ASSERT_TRUE(taken.finish.has_value());
  EXPECT_EQ(taken.finish->reason, FinishReason::kError);
  EXPECT_EQ(taken.finish->status.code(), absl::StatusCode::kUnavailable);
  stream.Finish({.reason = FinishReason::kCancelled, .stop_token = {}, .status = {}});
  taken = stream.Take();
  EXPECT_TRUE(taken.tokens.empty());
  EXPECT_FALSE(taken.finish.has_value()) << "nor later, when the error has been read";
  EXPECT_EQ(MetricValue(metrics_, "weft_requests_finished_total{outcome=\"error\"}"), 1);
  EXPECT_EQ(MetricValue(metrics_, "weft_requests_finished_total{outcome=\"cancelled\"}"), 0);
}

TEST_F(TokenStreamTest, MeasuresItsLife) {
  TokenStream stream = MakeStream();
  clock_.now += absl::Milliseconds(30);
  stream.Push({.token = 1});
  for (int i = 0; i < 2; ++i) {
    clock_.now += absl::Milliseconds(8);
    stream.Push({.token = 2});
  }
  clock_.now += absl::Milliseconds(4);
  stream.Finish({.reason = FinishReason::kStop, .stop_token = 3, .status = {}});
  EXPECT_EQ(MetricValue(metrics_, "weft_generation_tokens_total"), 3);
  EXPECT_DOUBLE_EQ(MetricValue(metrics_, "weft_time_to_first_token_seconds_sum"), 0.030);
  EXPECT_EQ(MetricValue(metrics_, "weft_inter_token_latency_seconds_count"), 2);
  EXPECT_DOUBLE_EQ(MetricValue(metrics_, "weft_inter_token_latency_seconds_sum"), 0.016);
  EXPECT_DOUBLE_EQ(MetricValue(metrics_, "weft_request_time_per_output_token_seconds_sum"), 0.008);
  EXPECT_DOUBLE_EQ(MetricValue(metrics_, "weft_e2e_request_latency_seconds_sum"), 0.050);
}

TEST_F(TokenStreamTest, TellsHowItEnded) {
  struct Case {
    FinishReason reason;
    bool stopped_by_reader;
    const char* outcome;
  };
  for (const Case& c : {Case{FinishReason::kStop, false, "stop"}, Case{FinishReason::kLength, false, "length"},
                        Case{FinishReason::kError, false, "error"}, Case{FinishReason::kCancelled, false, "cancelled"},
                        Case{FinishReason::kCancelled, true, "stop"}}) {
    const std::string series = absl::StrCat("weft_requests_finished_total{outcome=\"", c.outcome, "\"}");
    const double before = MetricValue(metrics_, series);
    TokenStream stream = MakeStream();
    if (c.stopped_by_reader) stream.CancelAfterStop();
    stream.Finish({.reason = c.reason, .stop_token = {}, .status = {}});
    EXPECT_EQ(MetricValue(metrics_, series), before + 1) << c.outcome;
  }
}

}  // namespace
}  // namespace weft
