// What SampleArgs ask of the device.
#pragma once

#include <cmath>

#include "kernels/cuda/sampling_jobs.h"
#include "kernels/sampling.h"

namespace weft::cuda {

inline bool WantsLogprobs(const SampleArgs& args) { return args.num_logprobs >= 0; }

inline bool IsEdited(const SampleArgs& args) {
  return !args.known.has_value() && !(args.counts.empty() && args.biases.empty());
}

// Whether fewer tokens may be drawn than there are, by more than each one's own weight.
inline bool IsCut(const SampleArgs& args) { return args.temperature == 0 || args.top_k > 0 || args.top_p < 1; }

// NaN and +infinity spoil a row; -infinity is a token that can't be drawn.
inline bool IsSpoilt(float max) { return std::isnan(max) || max == INFINITY; }

// Without the row it is for.
inline DrawJob DrawJobOf(const SampleArgs& args) {
  return {.top_k = args.top_k,
          .temperature = args.temperature,
          .top_p = args.top_p,
          .min_p = args.min_p,
          .sequence = args.sequence,
          .seed = args.seed,
          .position = args.position};
}

}  // namespace weft::cuda
