#include "kernels/cuda/sampling_run.h"

#include <algorithm>
#include <bit>

#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/ops.h"
#include "kernels/status_macros.h"

namespace weft::cuda {
namespace {

template <typename Job>
int64_t MostTokens(const std::vector<Job>& jobs) {
  int64_t most = 0;
  for (const Job& job : jobs) most = std::max<int64_t>(most, job.count);
  return most;
}

template <typename Job>
int NumJobs(const Part<Job>& part) {
  return static_cast<int>(part.count);
}

}  // namespace

void SamplingJobs::Pick(PickJob job) {
  job.padded = static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(job.wanted)));
  job.picked_begin = num_picked;
  job.scratch_begin = picks.empty() ? 0 : picks.back().scratch_begin + picks.back().padded;
  num_picked += job.wanted;
  picks.push_back(job);
}

absl::Status SamplingRun::Send(SamplingJobs& jobs) {
  const auto put = [&](const auto& values) { return given_.Put(absl::MakeConstSpan(values)); };
  given_.Clear();
  parts_ = {.raw_summaries = put(jobs.raw_summaries),
            .summaries = put(jobs.summaries),
            .edits = put(jobs.edits),
            .counts = put(jobs.counts),
            .biases = put(jobs.biases),
            .picks = put(jobs.picks),
            .draws = put(jobs.draws),
            .totals = put(jobs.totals),
            .list_logits = put(jobs.list_logits),
            .list_tokens = put(jobs.list_tokens)};
  RETURN_IF_ERROR(ToStatus(given_.Reserve(), "memory for sampling"));
  for (size_t i = 0; i < jobs.list_begins.size(); ++i) {
    jobs.draws[i].row.logits = given_.OnDevice(parts_.list_logits) + jobs.list_begins[i];
    jobs.draws[i].row.tokens = given_.OnDevice(parts_.list_tokens) + jobs.list_begins[i];
  }
  return ToStatus(given_.Send(stream_), "copying to the device");
}

absl::Status SamplingRun::Summarize(const SamplingJobs& jobs) {
  RETURN_IF_ERROR(ToStatus(LaunchSummarizeRows(given_.OnDevice(parts_.raw_summaries), NumJobs(parts_.raw_summaries),
                                               MostTokens(jobs.raw_summaries), found_.OnDevice(raw_totals_), stream_),
                           "summaries of raw logits"));
  RETURN_IF_ERROR(ToStatus(LaunchEditLogits(given_.OnDevice(parts_.edits), NumJobs(parts_.edits),
                                            given_.OnDevice(parts_.counts), given_.OnDevice(parts_.biases), stream_),
                           "penalties and biases"));
  return ToStatus(LaunchSummarizeRows(given_.OnDevice(parts_.summaries), NumJobs(parts_.summaries),
                                      MostTokens(jobs.summaries), found_.OnDevice(totals_), stream_),
                  "summaries");
}

absl::Status SamplingRun::PickBest(const SamplingJobs& jobs) {
  if (jobs.picks.empty()) return absl::OkStatus();
  const auto scratch = static_cast<size_t>(jobs.picks.back().scratch_begin + jobs.picks.back().padded);
  RETURN_IF_ERROR(ToStatus(Grow(scratch_, scratch * sizeof(uint64_t)), "memory for sorting"));
  return ToStatus(LaunchPickBest(given_.OnDevice(parts_.picks), NumJobs(parts_.picks), MostTokens(jobs.picks),
                                 scratch_.As<uint64_t>(), found_.OnDevice(picked_), stream_),
                  "best tokens");
}

absl::Status SamplingRun::DrawTokens(const SamplingJobs& jobs) {
  int64_t most_tokens = 0;
  for (const DrawJob& job : jobs.draws) most_tokens = std::max<int64_t>(most_tokens, job.row.count);
  const RowTotals* const totals = jobs.totals.empty() ? found_.OnDevice(totals_) : given_.OnDevice(parts_.totals);
  return ToStatus(LaunchDrawTokens(given_.OnDevice(parts_.draws), NumJobs(parts_.draws), most_tokens, totals,
                                   found_.OnDevice(drawn_), stream_),
                  "draws");
}

absl::Status SamplingRun::Run(SamplingJobs& jobs) {
  RETURN_IF_ERROR(Send(jobs));
  found_.Clear();
  raw_totals_ = found_.Add<RowTotals>(jobs.num_rows);
  totals_ = found_.Add<RowTotals>(jobs.num_rows);
  picked_ = found_.Add<PickedToken>(static_cast<size_t>(jobs.num_picked));
  drawn_ = found_.Add<DrawnToken>(jobs.draws.size());
  RETURN_IF_ERROR(ToStatus(found_.Reserve(), "memory for sampling"));
  RETURN_IF_ERROR(Summarize(jobs));
  RETURN_IF_ERROR(PickBest(jobs));
  RETURN_IF_ERROR(DrawTokens(jobs));
  return ToStatus(found_.Fetch(stream_), "copying to the host");
}

}  // namespace weft::cuda
