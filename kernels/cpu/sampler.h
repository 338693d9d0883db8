// Draws tokens from logits: the rules of kernels/sampling.h on the CPU.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/sampling_rules.h"
#include "kernels/sampling.h"

namespace weft::cpu {

// Samples one row at a time. Holds working memory of the vocabulary's size, so keep one a thread; not thread-safe.
class RowSampler {
 public:
  explicit RowSampler(const Kernels& kernels) : kernels_(&kernels) {}

  // Draws one token from logits [vocab], which it overwrites.
  void Sample(absl::Span<float> logits, const SampleArgs& args, SampleResult& result);

 private:
  int32_t Draw(absl::Span<const float> logits, const SampleArgs& args, float max);
  void SelectHeavy(absl::Span<const float> logits, double least_weight);
  double WeighCandidates(float max, float temperature);
  double FillTopLogprobs(absl::Span<const float> logits, int count, float max, SampleResult& result);

  const Kernels* kernels_;
  std::vector<float> raw_;             // the logits as they came, when log-probabilities are wanted
  std::vector<float> weights_;         // of all tokens, or of the candidates
  std::vector<Candidate> candidates_;  // the tokens kept, once some were cut
};

}  // namespace weft::cpu
