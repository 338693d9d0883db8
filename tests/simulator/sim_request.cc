#include "tests/simulator/sim_request.h"

#include <algorithm>

#include "tests/fakes/shadow_device.h"

namespace weft {

bool SimRequest::NanIsNext() const {
  if (sampling.score_prompt && num_scores + 1 < num_prompt()) return nan_position == num_scores + 1;
  return nan_position == static_cast<int64_t>(prompt.size() + num_tokens);
}

void Answer(SimRequest& request, int32_t vocab_size) {
  request.golden = ShadowDevice::ExpectedTokens(request.prompt, request.sampling, vocab_size, request.stop.max_tokens);
  const std::vector<int32_t>& stops = request.stop.stop_token_ids;
  const auto end = std::find_first_of(request.golden.begin(), request.golden.end(), stops.begin(), stops.end());
  if (end == request.golden.end()) return;
  request.golden_reason = FinishReason::kStop;
  request.golden_stop = *end;
  request.golden.erase(end, request.golden.end());
}

}  // namespace weft
