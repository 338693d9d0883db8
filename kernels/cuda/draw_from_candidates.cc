// The third step of sampling_shards.h. What hangs on one candidate of each rank the host sees for itself; the cuts and
// the race among many are the device's.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/row_candidates.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/sampler.h"
#include "kernels/status_macros.h"

namespace weft::cuda {
namespace {

bool IsBetter(const DrawCandidate& a, const DrawCandidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

bool HasMoreRaw(const DrawCandidate& a, const DrawCandidate& b) {
  return a.raw != b.raw ? a.raw > b.raw : a.token < b.token;
}

bool IsSooner(const DrawCandidate& a, const DrawCandidate& b) {
  return a.time != b.time ? a.time < b.time : a.token < b.token;
}

bool IsListed(const SampleArgs& args) { return !args.known.has_value() && IsCut(args) && args.temperature > 0; }

// The first of all candidates for the draw; without a token where there are none.
template <typename ComesBefore>
DrawCandidate FirstOf(const RowCandidates& row, const ComesBefore& comes_before) {
  DrawCandidate first;
  for (size_t rank = 0; rank < row.num_ranks(); ++rank) {
    for (const DrawCandidate& candidate : row.Best(rank)) {
      if (candidate.token < 0) continue;
      if (first.token < 0 || comes_before(candidate, first)) first = candidate;
    }
  }
  return first;
}

// The best that a rank may still hold back: none of these is better than the last one that it gave.
DrawCandidate BestUnseen(const RowCandidates& row) {
  DrawCandidate best{.logit = -INFINITY, .token = -1};
  for (size_t rank = 0; rank < row.num_ranks(); ++rank) {
    const DrawCandidate& last = row.Best(rank).back();
    if (last.token >= 0 && (best.token < 0 || IsBetter(last, best))) best = last;
  }
  return best;
}

// Adds the row's candidates as a list to draw from; listed: them, in that order.
void AddDraw(const SampleArgs& args, const RowSummary& row, const RowCandidates& candidates, SamplingJobs& jobs,
             std::vector<DrawCandidate>& listed) {
  DrawJob job = DrawJobOf(args);
  if (args.top_k >= row.num_tokens) job.top_k = 0;
  job.totals = static_cast<int32_t>(jobs.totals.size());
  jobs.totals.push_back({.sum = row.sum, .max = row.max});
  jobs.list_begins.push_back(listed.size());
  for (size_t rank = 0; rank < candidates.num_ranks(); ++rank) {
    for (const DrawCandidate& candidate : candidates.Best(rank)) {
      if (candidate.token < 0) continue;
      jobs.list_logits.push_back(candidate.logit);
      jobs.list_tokens.push_back(candidate.token);
      listed.push_back(candidate);
    }
  }
  job.row.count = static_cast<int32_t>(listed.size() - jobs.list_begins.back());
  jobs.draws.push_back(job);
}

// Whether the nucleus is among the candidates: no rank may hold back a token of it.
bool HasNucleus(const SampleArgs& args, const RowSummary& row, const RowDraw& draw, const RowCandidates& candidates,
                const DrawnToken& drawn) {
  const bool all_are_here = args.top_k > 0 || draw.num_best >= row.most_tokens;
  if (!(args.top_p < 1) || all_are_here) return true;
  if (drawn.is_reached == 0) return false;
  const DrawCandidate unseen = BestUnseen(candidates);
  return unseen.token < 0 || !IsBetter(unseen, {.logit = drawn.last_logit, .token = drawn.last_token});
}

// `raw`: of the token that the result is.
void FillLogprobs(const SampleArgs& args, const RowSummary& row, const RowCandidates& candidates, float raw,
                  SampleResult& result) {
  const double log_sum = row.raw_max + std::log(row.raw_sum);
  result.logprob = static_cast<float>(raw - log_sum);
  std::vector<DrawCandidate> top;
  for (size_t rank = 0; rank < candidates.num_ranks(); ++rank) {
    for (const DrawCandidate& candidate : candidates.Top(rank)) {
      if (candidate.token >= 0) top.push_back(candidate);
    }
  }
  std::sort(top.begin(), top.end(), HasMoreRaw);
  top.resize(std::min(top.size(), static_cast<size_t>(args.num_logprobs)));
  for (const DrawCandidate& candidate : top) {
    result.top_logprobs.push_back({candidate.token, static_cast<float>(candidate.raw - log_sum)});
  }
}

}  // namespace

absl::Status Sampler::DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                                         absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                                         absl::Span<SampleResult> results) {
  size_t stride = 0;
  for (const RowDraw& draw : draws) stride += static_cast<size_t>(draw.num_candidates());
  SamplingJobs jobs;
  std::vector<DrawCandidate> listed;
  std::vector<RowCandidates> of_rows;
  size_t begin = 0;
  for (size_t i = 0; i < args.size(); ++i) {
    of_rows.emplace_back(candidates, stride, begin, draws[i]);
    begin += static_cast<size_t>(draws[i].num_candidates());
    const bool is_open = !draws[i].is_drawn && rows[i].finite != 0;
    if (is_open && IsListed(args[i])) AddDraw(args[i], rows[i], of_rows[i], jobs, listed);
  }
  const absl::Status status = jobs.draws.empty() ? absl::OkStatus() : run_.Run(jobs);

  size_t draw = 0;  // of the run's
  for (size_t i = 0; i < args.size(); ++i) {
    if (draws[i].is_drawn) continue;
    SampleResult& result = results[i] = {.finite = status.ok() && rows[i].finite != 0};
    draws[i].is_drawn = true;
    if (!result.finite) continue;
    DrawCandidate winner;
    if (args[i].known.has_value()) {
      winner = {.raw = rows[i].known_raw, .token = *args[i].known};
    } else if (!IsListed(args[i])) {
      winner = args[i].temperature == 0 ? FirstOf(of_rows[i], IsBetter) : FirstOf(of_rows[i], IsSooner);
    } else {
      const DrawnToken& drawn = run_.drawn()[draw];
      const size_t list_begin = jobs.list_begins[draw++];
      draws[i].is_drawn = HasNucleus(args[i], rows[i], draws[i], of_rows[i], drawn);
      if (!draws[i].is_drawn) continue;
      if (drawn.index >= 0) winner = listed[list_begin + static_cast<size_t>(drawn.index)];
    }
    result.token = winner.token;
    if (WantsLogprobs(args[i])) FillLogprobs(args[i], rows[i], of_rows[i], winner.raw, result);
  }
  return status;
}

}  // namespace weft::cuda
