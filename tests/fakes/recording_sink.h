// A TokenSink that keeps everything it is told.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "absl/synchronization/notification.h"
#include "kernels/check.h"
#include "scheduler/request.h"

namespace weft {

class RecordingSink final : public TokenSink {
 public:
  void Start(int64_t num_cached_tokens) override {
    CHECK(!cached.has_value() && !finish.has_value() && tokens.empty(), "it starts once, before anything else");
    cached = num_cached_tokens;
  }
  void Push(const SampledToken& token) override {
    CHECK(!finish.has_value(), "nothing comes after the end");
    if (token.in_prompt) {
      scores.push_back(token);
    } else {
      tokens.push_back(token.token);
      logprobs.push_back(token.logprob);
    }
  }
  void Finish(const FinishEvent& event) override {
    CHECK(!finish.has_value(), "exactly one end");
    finish = event;
    finished.Notify();
  }
  bool Cancelled() const override { return cancelled; }

  std::optional<int64_t> cached;  // tokens of the prompt, once it has started
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;       // of the tokens; zeros unless they were asked for
  std::vector<SampledToken> scores;  // of the prompt
  std::optional<FinishEvent> finish;
  absl::Notification finished;  // for tests with threads: after it, the rest may be read
  std::atomic<bool> cancelled = false;
};

}  // namespace weft
