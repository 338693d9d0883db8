#include "tests/simulator/reader.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace weft {

Reader::Reader(std::function<void()> wake, const SimClock& clock, Metrics& metrics)
    : clock_(clock), metrics_(metrics), waker_(std::make_shared<StreamWaker>([this, wake = std::move(wake)] {
        CHECK(!has_left_, "who has left is not woken");
        wake();
      })) {}

std::shared_ptr<TokenStream> Reader::Open(SimRequest& request) {
  Choice choice{.request = &request};
  const bool wants_logprobs = request.sampling.num_logprobs >= 0;
  choice.stream = std::make_shared<TokenStream>(waker_, clock_.Now(), wants_logprobs, clock_, metrics_);
  return choices_.emplace_back(std::move(choice)).stream;
}

void Reader::Read() {
  waker_->Arm();
  for (Choice& choice : choices_) ReadFrom(choice);
}

void Reader::ReadFrom(Choice& choice) {
  const TokenStream::Taken taken = choice.stream->Take();
  const SimRequest& request = *choice.request;
  const bool is_empty = taken.tokens.empty() && taken.scores.empty() && !taken.finish.has_value();
  CHECK(is_empty || !choice.finish.has_value(), "nothing comes after the end");
  for (const SampledToken& score : taken.scores) {
    CHECK(score.token == request.prompt[static_cast<size_t>(++choice.num_scores)], "scores come in order");
  }
  CHECK(taken.details.size() == (request.sampling.num_logprobs >= 0 ? taken.tokens.size() : 0), "details if asked for");
  for (const int32_t token : taken.tokens) {
    CHECK(choice.num_tokens < request.num_tokens && token == request.golden[choice.num_tokens],
          "what is read is what was told");
    ++choice.num_tokens;
  }
  CHECK(!taken.finish.has_value() || request.finish.has_value() || request.aborted, "an end that was told");
  if (taken.finish.has_value()) choice.finish = taken.finish;
  if (!taken.finish.has_value() || request.aborted) return;
  CHECK(choice.num_tokens == request.num_tokens && choice.num_scores == request.num_scores, "the end comes last");
  CHECK(taken.finish->reason == request.finish->reason, "the end that was told");
}

void Reader::Leave() {
  waker_->Disarm();
  has_left_ = true;
}

bool Reader::HasReadAll() const {
  return std::all_of(choices_.begin(), choices_.end(),
                     [](const Choice& choice) { return choice.finish.has_value() || !choice.request->WasPushed(); });
}

}  // namespace weft
