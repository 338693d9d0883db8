#include "kernels/cuda/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/status_macros.h"

namespace weft::cuda {
namespace {

int32_t Count(const LogitShare& share) { return static_cast<int32_t>(share.logits.cols); }

// Whether anybody looks at the logits before they are edited.
bool HasRawSummary(const SampleArgs& args) { return IsEdited(args) || args.known.has_value() || WantsLogprobs(args); }

SummaryJob RawSummaryOf(const LogitShare& share, const SampleArgs& args, size_t row) {
  const int64_t known = args.known.has_value() ? int64_t{*args.known} - share.first_token : -1;
  return {.logits = share.logits.Row<float>(static_cast<int64_t>(row)),
          .count = Count(share),
          .known = known >= 0 && known < share.logits.cols ? static_cast<int32_t>(known) : -1,
          .temperature = WantsLogprobs(args) ? 1.0f : 0.0f,
          .row = static_cast<int32_t>(row)};
}

// raw: null, or where to copy the row to.
void AddEdit(const LogitShare& share, const SampleArgs& args, size_t row, float* raw, SamplingJobs& jobs) {
  jobs.edits.push_back({.logits = share.logits.Row<float>(static_cast<int64_t>(row)),
                        .copy = raw,
                        .first_token = share.first_token,
                        .count = Count(share),
                        .repetition_penalty = args.repetition_penalty,
                        .presence_penalty = args.presence_penalty,
                        .frequency_penalty = args.frequency_penalty,
                        .counts_begin = static_cast<int32_t>(jobs.counts.size()),
                        .num_counts = static_cast<int32_t>(args.counts.size()),
                        .biases_begin = static_cast<int32_t>(jobs.biases.size()),
                        .num_biases = static_cast<int32_t>(args.biases.size())});
  jobs.counts.insert(jobs.counts.end(), args.counts.begin(), args.counts.end());
  jobs.biases.insert(jobs.biases.end(), args.biases.begin(), args.biases.end());
}

// Summaries of rows before and after they are edited; of the latter the sum too, where it is wanted.
template <typename WantsSum>
void AddSummaries(const LogitShare& share, absl::Span<const SampleArgs> args, const std::vector<float*>& raw_rows,
                  const WantsSum& wants_sum, SamplingJobs& jobs) {
  jobs.num_rows = args.size();
  for (size_t i = 0; i < args.size(); ++i) {
    if (HasRawSummary(args[i])) jobs.raw_summaries.push_back(RawSummaryOf(share, args[i], i));
    if (IsEdited(args[i])) AddEdit(share, args[i], i, raw_rows[i], jobs);
    if (args[i].known.has_value()) continue;
    jobs.summaries.push_back({.logits = share.logits.Row<float>(static_cast<int64_t>(i)),
                              .count = Count(share),
                              .temperature = wants_sum(args[i]) ? args[i].temperature : 0,
                              .row = static_cast<int32_t>(i)});
  }
}

PickJob PickOf(const LogitShare& share, const float* logits, const float* raw, int wanted) {
  return {.logits = logits, .raw = raw, .first_token = share.first_token, .count = Count(share), .wanted = wanted};
}

DrawJob DrawOfRow(const LogitShare& share, const SampleArgs& args, size_t row, const float* raw) {
  DrawJob job = DrawJobOf(args);
  job.row = {.logits = share.logits.Row<float>(static_cast<int64_t>(row)),
             .first_token = share.first_token,
             .count = Count(share)};
  job.raw = raw;
  job.totals = static_cast<int32_t>(row);
  if (args.top_k >= share.logits.cols) job.top_k = 0;
  return job;
}

int NumTop(const SampleArgs& args, int64_t vocab) {
  return static_cast<int>(std::clamp<int64_t>(args.num_logprobs, 0, vocab));
}

}  // namespace

// Where each row's logits are as they came; null where nobody asks for them. Rows that are edited have copies, which
// stay until other rows need them.
absl::StatusOr<std::vector<float*>> Sampler::RawRows(const LogitShare& share, absl::Span<const SampleArgs> args) {
  if (share.first_token + share.logits.cols > kMaxTokens) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTokens, " tokens"));
  }
  const auto has_copy = [](const SampleArgs& a) { return IsEdited(a) && WantsLogprobs(a); };
  const auto cols = static_cast<size_t>(share.logits.cols);
  const auto num_copies = static_cast<size_t>(std::count_if(args.begin(), args.end(), has_copy));
  RETURN_IF_ERROR(ToStatus(Grow(copies_, num_copies * cols * sizeof(float)), "memory for raw logits"));
  std::vector<float*> rows(args.size());
  auto* next_copy = copies_.As<float>();
  for (size_t i = 0; i < args.size(); ++i) {
    if (!WantsLogprobs(args[i])) continue;
    rows[i] = has_copy(args[i]) ? std::exchange(next_copy, next_copy + cols)
                                : share.logits.Row<float>(static_cast<int64_t>(i));
  }
  return rows;
}

absl::Status Sampler::RunSample(Tensor logits, absl::Span<const SampleArgs> args) {
  const LogitShare share{logits};
  ASSIGN_OR_RETURN(const std::vector<float*> raw_rows, RawRows(share, args));
  SamplingJobs jobs;
  const auto wants_sum = [&](const SampleArgs& a) {
    return a.top_p < 1 && (a.top_k <= 0 || a.top_k >= logits.cols);  // else top_k's tokens are summed
  };
  AddSummaries(share, args, raw_rows, wants_sum, jobs);
  for (size_t i = 0; i < args.size(); ++i) {
    const int num_top = NumTop(args[i], logits.cols);
    if (num_top > 0) jobs.Pick(PickOf(share, raw_rows[i], raw_rows[i], num_top));
    if (args[i].known.has_value()) continue;
    jobs.draws.push_back(DrawOfRow(share, args[i], i, raw_rows[i]));
    jobs.draws.back().keep = args[i].keep;
  }
  return run_.Run(jobs);
}

absl::Status Sampler::Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results) {
  for (SampleResult& result : results) result = {.finite = false};
  RETURN_IF_ERROR(RunSample(logits, args));
  absl::Span<const PickedToken> picked = run_.picked();
  absl::Span<const DrawnToken> drawn = run_.drawn();
  for (size_t i = 0; i < args.size(); ++i) {
    const auto top = picked.first(static_cast<size_t>(NumTop(args[i], logits.cols)));
    picked.remove_prefix(top.size());
    DrawnToken token;
    if (!args[i].known.has_value()) {
      token = drawn.front();
      drawn.remove_prefix(1);
    }
    const RowTotals& raw = run_.raw_totals()[i];
    SampleResult& result = results[i];
    result.finite = (!HasRawSummary(args[i]) || std::isfinite(raw.max)) &&
                    (args[i].known.has_value() || std::isfinite(run_.totals()[i].max));
    if (!result.finite) continue;
    result.token = args[i].known.value_or(token.token);
    if (!WantsLogprobs(args[i])) continue;
    const double log_sum = raw.max + std::log(raw.sum);
    result.logprob = static_cast<float>((args[i].known.has_value() ? raw.known : token.raw) - log_sum);
    for (const PickedToken& other : top) {
      if (other.token >= 0) {
        result.top_logprobs.push_back({other.token, static_cast<float>(other.logit - log_sum)});
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Sampler::RunSummaries(const LogitShare& share, absl::Span<const SampleArgs> args) {
  ASSIGN_OR_RETURN(const std::vector<float*> raw_rows, RawRows(share, args));
  SamplingJobs jobs;
  AddSummaries(
      share, args, raw_rows, [](const SampleArgs&) { return true; }, jobs);
  return run_.Run(jobs);
}

absl::Status Sampler::SummarizeRows(const LogitShare& share, absl::Span<const SampleArgs> args,
                                    absl::Span<RowSummary> shares) {
  for (RowSummary& summary : shares) summary = {.finite = 0, .num_tokens = Count(share)};
  RETURN_IF_ERROR(RunSummaries(share, args));
  for (size_t i = 0; i < args.size(); ++i) {
    const RowTotals& totals = args[i].known.has_value() ? run_.raw_totals()[i] : run_.totals()[i];
    const RowTotals& raw = HasRawSummary(args[i]) ? run_.raw_totals()[i] : totals;
    shares[i] = {.max = totals.max,
                 .raw_max = raw.max,
                 .sum = args[i].known.has_value() ? 0 : totals.sum,
                 .raw_sum = WantsLogprobs(args[i]) ? raw.sum : 0,
                 .known_raw = args[i].known.has_value() ? raw.known : -INFINITY,
                 .finite = IsSpoilt(raw.max) || IsSpoilt(totals.max) ? 0 : 1,
                 .num_tokens = Count(share)};
  }
  return absl::OkStatus();
}

absl::Status Sampler::RunPicks(const LogitShare& share, absl::Span<const SampleArgs> args,
                               absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws) {
  ASSIGN_OR_RETURN(const std::vector<float*> raw_rows, RawRows(share, args));
  SamplingJobs jobs;
  for (size_t i = 0; i < args.size(); ++i) {
    jobs.totals.push_back({.max = rows[i].max});
    if (draws[i].is_drawn || rows[i].finite == 0) continue;
    if (draws[i].num_best > 0 && IsCut(args[i])) {
      const auto* const logits = share.logits.Row<const float>(static_cast<int64_t>(i));
      jobs.Pick(PickOf(share, logits, raw_rows[i], draws[i].num_best));
    } else if (draws[i].num_best > 0) {
      jobs.draws.push_back(DrawOfRow(share, args[i], i, raw_rows[i]));
    }
    if (draws[i].num_top > 0) jobs.Pick(PickOf(share, raw_rows[i], raw_rows[i], draws[i].num_top));
  }
  return run_.Run(jobs);
}

absl::Status Sampler::PickCandidates(const LogitShare& share, absl::Span<const SampleArgs> args,
                                     absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                                     absl::Span<DrawCandidate> candidates) {
  std::fill(candidates.begin(), candidates.end(), DrawCandidate{});
  RETURN_IF_ERROR(RunPicks(share, args, rows, draws));
  const PickedToken* picked = run_.picked().data();
  const DrawnToken* drawn = run_.drawn().data();
  for (size_t i = 0; i < args.size(); ++i) {
    const auto own = candidates.first(static_cast<size_t>(draws[i].num_candidates()));
    candidates.remove_prefix(own.size());
    if (draws[i].is_drawn || rows[i].finite == 0) continue;
    const auto best = own.first(static_cast<size_t>(draws[i].num_best)), top = own.subspan(best.size());
    if (!best.empty() && !IsCut(args[i])) {
      best[0] = {.time = drawn->time, .raw = drawn->raw, .token = drawn->token};
      ++drawn;
    } else {
      for (DrawCandidate& candidate : best) {
        candidate = {.logit = picked->logit, .raw = picked->raw, .token = picked->token};
        ++picked;
      }
    }
    for (DrawCandidate& candidate : top) {
      candidate = {.raw = picked->raw, .token = picked->token};
      ++picked;
    }
  }
  return absl::OkStatus();
}

}  // namespace weft::cuda
