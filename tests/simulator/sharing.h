// Checks, where nothing keeps a prefix from being shared, that it is.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/check.h"
#include "tests/simulator/scene.h"

namespace weft {

class Sharing {
 public:
  explicit Sharing(const Scene& scene) : scene_(scene) {}

  // After each part of an event. `was_lost`: some prefix was evicted or left half computed.
  void Check(bool was_lost) {
    for (const Told& told : scene_.told) {
      if (told.what != Told::What::kStart) continue;
      const SimRequest& request = *told.request;
      if (!was_lost) CHECK(request.num_cached >= Least(request), "a prefix that was computed is taken up");
      if (request.scope.has_value() && !request.sampling.score_prompt) started_.push_back(&request);
    }
  }

 private:
  // Tokens that it must find: those of others that got a row and started before; of a lower class it waits for none.
  int Least(const SimRequest& request) const {
    if (!request.scope.has_value() || request.sampling.score_prompt) return 0;
    const int block_size = scene_.plan.limits.block_size;
    int most = 0;
    for (const SimRequest* other : started_) {
      if (other->scope_tag != request.scope_tag || other->priority < request.priority) continue;
      if (other->pulled_at > request.pulled_at) continue;
      const auto limit = static_cast<std::ptrdiff_t>(std::min(other->prompt.size(), request.prompt.size())) - 1;
      const auto end = std::mismatch(request.prompt.begin(), request.prompt.begin() + limit, other->prompt.begin());
      most = std::max(most, static_cast<int>(end.first - request.prompt.begin()) / block_size);
    }
    return most * block_size;
  }

  const Scene& scene_;
  std::vector<const SimRequest*> started_;
};

}  // namespace weft
