// Sends the jobs of a sampling op to the device, runs them, and fetches what they found.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cuda/sampling_jobs.h"
#include "kernels/cuda/staging.h"
#include "kernels/sampling.h"

namespace weft::cuda {

// What an op has to do, in this order. Where a list is empty nothing is launched.
struct SamplingJobs {
  std::vector<SummaryJob> raw_summaries;  // of logits as they come
  std::vector<EditJob> edits;
  std::vector<TokenCount> counts;
  std::vector<LogitBias> biases;
  std::vector<SummaryJob> summaries;  // of logits as they are then
  std::vector<PickJob> picks;
  std::vector<DrawJob> draws;

  size_t num_rows = 0;            // whose totals are wanted
  std::vector<RowTotals> totals;  // what draws go by, where it isn't the summaries'
  int64_t num_picked = 0;

  // Lists of tokens that draws go over: that of draw i begins at list_begins[i].
  std::vector<size_t> list_begins;
  std::vector<float> list_logits;
  std::vector<int32_t> list_tokens;

  // Adds a job, and sets what isn't its caller's to know.
  void Pick(PickJob job);
};

// Owns the memory through which jobs and results travel; used by the backend's thread.
class SamplingRun {
 public:
  explicit SamplingRun(cudaStream_t stream) : stream_(stream) {}

  // Waits for the device. Completes the draws that have lists. Errors: ResourceExhausted, or what a launch failed of.
  absl::Status Run(SamplingJobs& jobs);

  // Found by the last run.
  absl::Span<const RowTotals> raw_totals() const { return found_.OnHost(raw_totals_); }  // [num_rows]
  absl::Span<const RowTotals> totals() const { return found_.OnHost(totals_); }          // [num_rows]
  absl::Span<const PickedToken> picked() const { return found_.OnHost(picked_); }        // [num_picked]
  absl::Span<const DrawnToken> drawn() const { return found_.OnHost(drawn_); }           // [draws]

 private:
  absl::Status Summarize(const SamplingJobs& jobs);
  absl::Status PickBest(const SamplingJobs& jobs);
  absl::Status DrawTokens(const SamplingJobs& jobs);
  absl::Status Send(SamplingJobs& jobs);

  const cudaStream_t stream_;
  Staging given_, found_;
  Buffer scratch_;
  struct Given {
    Part<SummaryJob> raw_summaries, summaries;
    Part<EditJob> edits;
    Part<TokenCount> counts;
    Part<LogitBias> biases;
    Part<PickJob> picks;
    Part<DrawJob> draws;
    Part<RowTotals> totals;
    Part<float> list_logits;
    Part<int32_t> list_tokens;
  } parts_;
  Part<RowTotals> raw_totals_, totals_;
  Part<PickedToken> picked_;
  Part<DrawnToken> drawn_;
};

}  // namespace weft::cuda
