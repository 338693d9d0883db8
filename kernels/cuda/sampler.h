// Sampling on a CUDA device: which kernels each row of SampleArgs needs, and what their results mean. Logits stay on
// the device; what comes to the host is a few words a row, and the best tokens where they are asked for.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cuda/sampling_run.h"
#include "kernels/sampling.h"
#include "kernels/sampling_shards.h"
#include "kernels/tensor.h"

namespace weft::cuda {

// A rank's columns of the logits; all of them where it is alone.
struct LogitShare {
  Tensor logits;  // F32 [R, share]
  int32_t first_token = 0;
};

// The ops of Backend of these names, on the stream of a backend, whose thread uses it. After an error rows count as
// drawn, and as not finite: a caller comes to its end, and then asks for the error.
class Sampler {
 public:
  explicit Sampler(cudaStream_t stream) : run_(stream) {}

  absl::Status Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results);
  absl::Status SummarizeRows(const LogitShare& share, absl::Span<const SampleArgs> args, absl::Span<RowSummary> shares);
  absl::Status PickCandidates(const LogitShare& share, absl::Span<const SampleArgs> args,
                              absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                              absl::Span<DrawCandidate> candidates);
  absl::Status DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                                  absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                                  absl::Span<SampleResult> results);

 private:
  absl::StatusOr<std::vector<float*>> RawRows(const LogitShare& share, absl::Span<const SampleArgs> args);
  absl::Status RunSample(Tensor logits, absl::Span<const SampleArgs> args);
  absl::Status RunSummaries(const LogitShare& share, absl::Span<const SampleArgs> args);
  absl::Status RunPicks(const LogitShare& share, absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                        absl::Span<const RowDraw> draws);

  SamplingRun run_;
  Buffer copies_;  // [edited rows whose log-probabilities are wanted, share] logits as they came
};

}  // namespace weft::cuda
