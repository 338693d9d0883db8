#include "tests/simulator/sim_sink.h"

#include "kernels/check.h"

namespace weft {

void SimSink::Start(int64_t num_cached_tokens) {
  CHECK(!request_.started && !request_.finish.has_value(), "a request starts once, and first of all");
  CHECK(num_cached_tokens >= 0 && num_cached_tokens < request_.num_prompt(), "a prompt's last token is computed");
  CHECK(num_cached_tokens == 0 || request_.scope.has_value(), "who has no scope shares nothing");
  request_.started = true;
  request_.num_cached = num_cached_tokens;
  told_.push_back({&request_, Told::What::kStart, num_cached_tokens});
  stream_->Start(num_cached_tokens);
}

void SimSink::Push(const SampledToken& token) {
  CHECK(request_.started, "a request starts first");
  CHECK(!request_.finish.has_value(), "nothing comes after the end");
  CHECK(token.finite, "what isn't finite is told to nobody");
  if (token.in_prompt) {
    CHECK(request_.sampling.score_prompt, "scores come to who asked for them");
    CHECK(request_.num_tokens == 0, "scores come before tokens");
    const int position = ++request_.num_scores;
    CHECK(position < request_.num_prompt() && token.token == request_.prompt[static_cast<size_t>(position)] &&
              token.logprob == static_cast<float>(-position),
          "each prompt token is scored once, in order");
    CHECK(position != request_.nan_position, "a score that isn't finite ends the request");
    told_.push_back({&request_, Told::What::kScore, position});
  } else {
    CHECK(!request_.sampling.score_prompt || request_.num_scores == request_.num_prompt() - 1, "all scores come first");
    CHECK(request_.num_tokens < request_.golden.size(), "no token comes past the end");
    CHECK(token.token == request_.golden[request_.num_tokens], "the tokens are the right ones");
    CHECK(!request_.NanIsNext(), "a token that isn't finite ends the request");
    ++request_.num_tokens;
    told_.push_back({&request_, Told::What::kToken, token.token});
  }
  stream_->Push(token);
}

void SimSink::Finish(const FinishEvent& event) {
  CHECK(!request_.finish.has_value(), "a request ends once");
  CheckFinish(event);
  request_.finish = event;
  request_.raw = nullptr;
  told_.push_back({&request_, Told::What::kFinish, static_cast<int64_t>(event.reason)});
  stream_->Finish(event);
}

void SimSink::CheckFinish(const FinishEvent& event) const {
  switch (event.reason) {
    case FinishReason::kCancelled:
      CHECK(request_.cancelled, "only who was cancelled ends so");
      return;
    case FinishReason::kError:
      CHECK(!event.status.ok(), "an error has a status");
      if (absl::IsDeadlineExceeded(event.status)) {
        CHECK(clock_.latest() >= request_.deadline, "a deadline that has passed");
      }
      return;  // the others are for those who know about deaths
    case FinishReason::kStop:
    case FinishReason::kLength:
      CHECK(request_.started, "a request starts first");
      CHECK(event.reason == request_.golden_reason && event.stop_token == request_.golden_stop, "the right end");
      CHECK(request_.num_tokens == request_.golden.size(), "no token is missing at the end");
      CHECK(event.reason == FinishReason::kLength || !request_.NanIsNext(), "a stop token that isn't finite is none");
  }
}

}  // namespace weft
