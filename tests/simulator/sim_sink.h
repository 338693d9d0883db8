// A TokenSink that knows what it must be told, ends the process when it is told anything else, and passes it on.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "scheduler/request.h"
#include "tests/simulator/sim_clock.h"
#include "tests/simulator/sim_request.h"

namespace weft {

// What sinks were told since somebody last looked.
struct Told {
  enum class What { kStart, kToken, kScore, kFinish };
  SimRequest* request = nullptr;
  What what = What::kStart;
  int64_t value = 0;
};

class SimSink final : public TokenSink {
 public:
  // `stream` gets everything too. All others outlive the sink. `asked` gets the request each time that somebody asks
  // whether it was cancelled.
  SimSink(SimRequest& request, const SimClock& clock, std::vector<Told>& told, std::vector<SimRequest*>& asked,
          std::shared_ptr<TokenSink> stream)
      : request_(request), clock_(clock), told_(told), asked_(asked), stream_(std::move(stream)) {}

  void Start(int64_t num_cached_tokens) override;
  void Push(const SampledToken& token) override;
  void Finish(const FinishEvent& event) override;
  bool Cancelled() const override {
    asked_.push_back(&request_);
    return stream_->Cancelled();
  }

 private:
  void CheckFinish(const FinishEvent& event) const;

  SimRequest& request_;
  const SimClock& clock_;
  std::vector<Told>& told_;
  std::vector<SimRequest*>& asked_;
  const std::shared_ptr<TokenSink> stream_;  // shared with the reader
};

}  // namespace weft
