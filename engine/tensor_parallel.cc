#include "engine/tensor_parallel.h"

#include <algorithm>
#include <cstddef>
#include <numeric>

#include "kernels/sampling_shards.h"

namespace weft {
namespace {

template <typename T>
Tensor BytesOf(std::vector<T>& values, int64_t rows) {
  return DenseTensor(values.data(), DType::kI8, rows, static_cast<int64_t>(values.size() * sizeof(T)) / rows);
}

}  // namespace

HeadShard HeadsOf(const ModelConfig& config, const ParallelPlan& plan) {
  HeadShard shard{ShardOf(config.num_heads, plan.tp_rank, plan.tp_size), {}};
  const int64_t heads_a_kv_head = config.num_heads / config.num_kv_heads;
  const int64_t group = std::gcd(shard.heads.count, heads_a_kv_head);
  for (int64_t head = shard.heads.begin; head < shard.heads.end(); head += group) {
    shard.kv_heads.push_back(static_cast<int>(head / heads_a_kv_head));
  }
  return shard;
}

void TensorParallel::RowParallel(Tensor x, const Weight& weight, Tensor out) const {
  backend_->Linear(x, weight, out);
  SumOverRanks(out);
}

void TensorParallel::SumOverRanks(Tensor x) const {
  if (size_ > 1) group_->AllReduceSum(x);
}

void TensorParallel::Embed(const int32_t* token_ids, int32_t vocab_size, const Weight& table, Tensor out) const {
  backend_->Embed(token_ids, static_cast<int32_t>(ShardOf(vocab_size, rank_, size_).begin), table, out);
  SumOverRanks(out);  // all but one are zero: exact
}

// What all ranks say of each row, merged: the same on every rank.
std::vector<RowSummary> TensorParallel::Summarize(Tensor logits, int32_t first_token,
                                                  absl::Span<const SampleArgs> args) const {
  std::vector<RowSummary> own(args.size()), all(args.size() * static_cast<size_t>(size_)), rows, shares;
  backend_->SummarizeRows(logits, first_token, args, absl::MakeSpan(own));
  group_->AllGather(BytesOf(own, 1), BytesOf(all, size_));
  for (size_t i = 0; i < args.size(); ++i) {
    shares.clear();
    for (size_t share = i; share < all.size(); share += args.size()) shares.push_back(all[share]);
    rows.push_back(MergeSummaries(shares, args[i]));
  }
  return rows;
}

std::vector<DrawCandidate> TensorParallel::GatherCandidates(Tensor logits, int32_t first_token,
                                                            absl::Span<const SampleArgs> args,
                                                            absl::Span<const RowSummary> rows,
                                                            absl::Span<const RowDraw> draws) const {
  int64_t count = 0;
  for (const RowDraw& draw : draws) count += draw.num_candidates();
  std::vector<DrawCandidate> own(static_cast<size_t>(count)), all(own.size() * static_cast<size_t>(size_));
  backend_->PickCandidates(logits, first_token, args, rows, draws, absl::MakeSpan(own));
  group_->AllGather(BytesOf(own, 1), BytesOf(all, size_));
  return all;
}

void TensorParallel::Sample(Tensor logits, int32_t vocab_size, absl::Span<const SampleArgs> args,
                            absl::Span<SampleResult> results) const {
  if (size_ == 1) return backend_->Sample(logits, args, results);
  const auto first_token = static_cast<int32_t>(ShardOf(vocab_size, rank_, size_).begin);
  const std::vector<RowSummary> rows = Summarize(logits, first_token, args);
  if (!group_->status().ok()) return;  // what was gathered means nothing, not even as a size
  std::vector<RowDraw> draws(args.size());
  const auto is_drawn = [](const RowDraw& draw) { return draw.is_drawn; };
  for (int attempt = 0; !std::all_of(draws.begin(), draws.end(), is_drawn); ++attempt) {
    for (size_t i = 0; i < args.size(); ++i) {
      draws[i] = is_drawn(draws[i]) ? RowDraw{.is_drawn = true} : DrawOf(args[i], attempt, rows[i].most_tokens);
    }
    const std::vector<DrawCandidate> candidates = GatherCandidates(logits, first_token, args, rows, draws);
    if (!group_->status().ok()) return;
    backend_->DrawFromCandidates(args, rows, candidates, absl::MakeSpan(draws), results);
  }
}

}  // namespace weft
