#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/experts.h"
#include "kernels/cpu/grouped_linear.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/status_macros.h"

namespace weft::cpu {
namespace {

// Where each row's candidates begin among one rank's, and their end.
std::vector<size_t> CandidateBegins(absl::Span<const RowDraw> draws) {
  std::vector<size_t> begins = {0};
  for (const RowDraw& draw : draws) begins.push_back(begins.back() + static_cast<size_t>(draw.num_candidates()));
  return begins;
}

}  // namespace

CpuBackend::CpuBackend(int num_threads, Isa isa)
    : context_(isa, num_threads),
      samplers_(static_cast<size_t>(num_threads), RowSampler(context_.kernels)),
      shard_samplers_(static_cast<size_t>(num_threads), ShardSampler(context_.kernels)) {}

absl::StatusOr<Buffer> CpuBackend::Allocate(size_t bytes) {
  ASSIGN_OR_RETURN(Buffer buffer, AllocateMemory(bytes));
  TouchMemory(buffer, context_.pool);
  return buffer;
}

// Nothing may come as a null pointer, which memcpy must not see.
void CpuBackend::CopyFromHost(void* device, const void* host, size_t bytes) {
  if (bytes > 0) std::memcpy(device, host, bytes);
}

void CpuBackend::CopyToHost(void* host, const void* device, size_t bytes) {
  if (bytes > 0) std::memcpy(host, device, bytes);
}

absl::StatusOr<Weight> CpuBackend::MakeWeight(absl::Span<const HostMatrix> parts, absl::Span<const float> bias,
                                              DType dtype) {
  return PackWeight(parts, bias, dtype, context_.pool);
}

void CpuBackend::Embed(const int32_t* token_ids, int32_t first_token, const Weight& table, Tensor out) {
  ForRows(context_, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = int64_t{token_ids[t]} - first_token;
      if (row >= 0 && row < table.out_features) {
        UnpackRow(table, row, out.Row<float>(t));
      } else {
        std::fill_n(out.Row<float>(t), out.cols, 0.0f);
      }
    }
  });
}

void CpuBackend::Add(Tensor x, Tensor delta) {
  ForRows(context_, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) context_.kernels.add(x.Row<float>(t), delta.Row<float>(t), x.cols);
  });
}

void CpuBackend::RmsNorm(Tensor x, const float* weight, float eps, Tensor out) {
  ForRows(context_, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context_.kernels.rms_norm(x.Row<float>(t), weight, eps, x.cols, out.Row<float>(t));
    }
  });
}

void CpuBackend::AddRmsNorm(Tensor x, Tensor delta, const float* weight, float eps, Tensor out) {
  ForRows(context_, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      context_.kernels.add(x.Row<float>(t), delta.Row<float>(t), x.cols);
      context_.kernels.rms_norm(x.Row<float>(t), weight, eps, x.cols, out.Row<float>(t));
    }
  });
}

void CpuBackend::Linear(Tensor x, const Weight& weight, Tensor out) { cpu::Linear(context_, x, weight, out); }

void CpuBackend::RotateAndAppend(Tensor qkv, const AttentionHeads& heads, const QkNorm& norm, const RotaryTable& rotary,
                                 const RowMap& rows, const KvView& kv) {
  cpu::RotateAndAppend(context_, qkv, heads, norm, rotary, rows, kv);
}

void CpuBackend::Attention(Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out) {
  cpu::Attention(context_, qkv, args, rows, kv, out);
}

void CpuBackend::SwiGlu(Tensor gate_up, Tensor out) {
  ForRows(context_, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* const gate = gate_up.Row<float>(t);
      context_.kernels.swiglu(gate, gate + out.cols, out.cols, out.Row<float>(t));
    }
  });
}

void CpuBackend::ScatterPairs(const int32_t* pairs, int count, int32_t* target) {
  for (int i = 0; i < count; ++i) target[pairs[2 * i]] = pairs[2 * i + 1];
}

void CpuBackend::TakeInts(const int32_t* from, const int32_t* places, int count, int32_t* out) {
  for (int i = 0; i < count; ++i) {
    if (places[i] >= 0) out[i] = from[places[i]];
  }
}

void CpuBackend::GatherRows(Tensor x, const int32_t* rows, Tensor out) {
  ForRows(context_, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(out.Row<float>(i), x.Row<float>(rows[i]), static_cast<size_t>(out.cols) * sizeof(float));
    }
  });
}

void CpuBackend::RouteTokens(Tensor logits, bool normalize, const TokenExperts& experts) {
  cpu::RouteTokens(context_, logits, normalize, experts);
}

void CpuBackend::GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups) {
  cpu::GroupByExpert(experts, here, groups);
}

absl::StatusOr<ExpertWeights> CpuBackend::MakeExpertWeights(std::vector<Weight> experts) {
  return cpu::MakeExpertWeights(std::move(experts));
}

void CpuBackend::GroupedLinear(Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                               Tensor out) {
  cpu::GroupedLinear(context_, x, rows, begin, weights, out);
}

void CpuBackend::CombineExperts(Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out) {
  cpu::CombineExperts(context_, x, experts, places, out);
}

void CpuBackend::AddGated(Tensor gate, Tensor x, Tensor out) { cpu::AddGated(context_, gate, x, out); }

void CpuBackend::Sample(Tensor logits, absl::Span<const SampleArgs> args, absl::Span<SampleResult> results) {
  context_.pool.ParallelFor(logits.rows, [&](int64_t row, int thread) {
    const auto i = static_cast<size_t>(row);
    const absl::Span<float> row_logits(logits.Row<float>(row), static_cast<size_t>(logits.cols));
    samplers_[static_cast<size_t>(thread)].Sample(row_logits, args[i], results[i]);
    if (args[i].keep != nullptr) *args[i].keep = results[i].token;
  });
}

// Empty where nobody wants it.
absl::Span<float> CpuBackend::RawRow(size_t row, const SampleArgs& args, int64_t cols) {
  if (args.num_logprobs < 0) return {};
  raw_rows_[row].resize(static_cast<size_t>(cols));
  return absl::MakeSpan(raw_rows_[row]);
}

void CpuBackend::SummarizeRows(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                               absl::Span<RowSummary> shares) {
  raw_rows_.resize(std::max(raw_rows_.size(), args.size()));
  context_.pool.ParallelFor(logits.rows, [&](int64_t row, int thread) {
    const auto i = static_cast<size_t>(row);
    const absl::Span<float> row_logits(logits.Row<float>(row), static_cast<size_t>(logits.cols));
    shares[i] = shard_samplers_[static_cast<size_t>(thread)].Summarize(row_logits, first_token, args[i],
                                                                       RawRow(i, args[i], logits.cols));
  });
}

void CpuBackend::PickCandidates(Tensor logits, int32_t first_token, absl::Span<const SampleArgs> args,
                                absl::Span<const RowSummary> rows, absl::Span<const RowDraw> draws,
                                absl::Span<DrawCandidate> candidates) {
  const std::vector<size_t> begins = CandidateBegins(draws);
  context_.pool.ParallelFor(logits.rows, [&](int64_t row, int thread) {
    const auto i = static_cast<size_t>(row);
    if (draws[i].is_drawn) return;
    const absl::Span<const float> row_logits(logits.Row<float>(row), static_cast<size_t>(logits.cols));
    const auto own = candidates.subspan(begins[i], begins[i + 1] - begins[i]);
    const auto num_best = static_cast<size_t>(draws[i].num_best);
    shard_samplers_[static_cast<size_t>(thread)].Pick(row_logits, RawRow(i, args[i], logits.cols), first_token, args[i],
                                                      rows[i], own.first(num_best), own.subspan(num_best));
  });
}

void CpuBackend::DrawFromCandidates(absl::Span<const SampleArgs> args, absl::Span<const RowSummary> rows,
                                    absl::Span<const DrawCandidate> candidates, absl::Span<RowDraw> draws,
                                    absl::Span<SampleResult> results) {
  const std::vector<size_t> begins = CandidateBegins(draws);
  const size_t num_ranks = begins.back() == 0 ? 0 : candidates.size() / begins.back();
  context_.pool.ParallelFor(static_cast<int64_t>(args.size()), [&](int64_t row, int thread) {
    const auto i = static_cast<size_t>(row);
    if (draws[i].is_drawn) return;
    std::vector<DrawCandidate> own;
    for (size_t rank = 0; rank < num_ranks; ++rank) {
      const auto share = candidates.subspan(rank * begins.back() + begins[i], begins[i + 1] - begins[i]);
      own.insert(own.end(), share.begin(), share.end());
    }
    draws[i].is_drawn = shard_samplers_[static_cast<size_t>(thread)].Draw(args[i], rows[i], draws[i], own, results[i]);
    if (draws[i].is_drawn && args[i].keep != nullptr) *args[i].keep = results[i].token;
  });
}

}  // namespace weft::cpu
