// Draws tokens from logits: the rules of kernels/sampling.h on the CPU.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "kernels/cpu/kernels.h"
#include "kernels/sampling.h"

namespace weft::cpu {

// Samples one row at a time. Holds working memory of the vocabulary's size, so keep one a thread; not thread-safe.
class RowSampler {
 public:
  explicit RowSampler(const Kernels& kernels) : kernels_(&kernels) {}

  // Draws one token from logits [vocab], which it overwrites.
  void Sample(absl::Span<float> logits, const SampleArgs& args, SampleResult& result);

 private:
  struct Candidate {
    float logit;
    float weight;  // exp((logit - max) / temperature), so 1 for the best token
    int32_t token;
  };

  static bool Better(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }

  int32_t Draw(absl::Span<const float> logits, const SampleArgs& args, float max);
  void SelectBest(absl::Span<const float> logits, int64_t count);
  void SelectHeavy(absl::Span<const float> logits, double least_weight);
  double WeighCandidates(float max, float temperature);
  void KeepNucleus(double mass);
  double FillTopLogprobs(absl::Span<const float> logits, int count, float max, SampleResult& result);

  const Kernels* kernels_;
  std::vector<float> raw_;             // the logits as they came, when log-probabilities are wanted
  std::vector<float> weights_;         // of all tokens, or of the candidates
  std::vector<Candidate> candidates_;  // the tokens kept, once some were cut
};

}  // namespace weft::cpu
