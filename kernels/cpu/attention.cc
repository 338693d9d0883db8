// Paged attention: cuts a step into tasks of (some tokens of one row, one key-value head, some splits) and merges.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/kv_address.h"

namespace weft::cpu {
namespace {

constexpr int kQueriesPerTask = 32;                       // keys and values are read once for all of them
constexpr int64_t kMaxPartialFloats = int64_t{64} << 20;  // of all cut chunks; a chunk beyond it stays whole

constexpr int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Consecutive tokens of one row, all heads. The work is cut further by key-value head and, where a chunk is a large
// share of the step, by split.
struct Chunk {
  int row;
  int token_begin;
  int token_end;
  int64_t split_begin;  // splits that any of the tokens sees
  int64_t split_end;
  int64_t splits_per_task;
  int64_t first_task;
  int64_t partials;  // where the sums of its splits lie when it is cut, in floats

  int64_t num_splits() const { return split_end - split_begin; }
  int64_t tasks_per_head() const { return (num_splits() + splits_per_task - 1) / splits_per_task; }
  bool is_cut() const { return splits_per_task < num_splits(); }
};

// The sums of some queries over some splits: max and sum [num_queries], out [num_queries, padded_dim].
struct Sums {
  float* max;
  float* sum;
  float* out;
};

// The step's attention. Lives for one op.
class AttentionOp {
 public:
  AttentionOp(Context& context, Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv, Tensor out)
      : context_(context), qkv_(qkv), args_(args), rows_(rows), kv_(kv), out_(out) {
    group_ = args.heads.num_heads / args.heads.num_kv_heads;
    tokens_per_chunk_ = std::max(1, kQueriesPerTask / group_);
    max_queries_ = tokens_per_chunk_ * group_;
    padded_dim_ = RoundUp(args.heads.head_dim, 16);
  }

  void Run() {
    MakeChunks();
    LayOutTasks();
    const int64_t thread_floats = ThreadFloats();
    scratch_ = static_cast<float*>(context_.scratch.Get(
        static_cast<size_t>(context_.pool.num_threads() * thread_floats + partial_floats_) * sizeof(float)));
    partials_ = scratch_ + context_.pool.num_threads() * thread_floats;
    context_.pool.ParallelFor(num_tasks_,
                              [&](int64_t task, int thread) { RunTask(task, scratch_ + thread * thread_floats); });
    MergeCutChunks();
  }

 private:
  int64_t FirstVisible(int64_t position) const {
    return args_.sliding_window > 0 ? std::max<int64_t>(0, position - args_.sliding_window + 1) : 0;
  }

  void MakeChunks() {
    for (int row = 0; row < rows_.num_rows; ++row) {
      for (int t = rows_.row_begin[row]; t < rows_.row_begin[row + 1]; t += tokens_per_chunk_) {
        Chunk chunk{};
        chunk.row = row;
        chunk.token_begin = t;
        chunk.token_end = std::min(t + tokens_per_chunk_, rows_.row_begin[row + 1]);
        chunk.split_begin = FirstVisible(rows_.positions[t]) / kSplit;
        chunk.split_end = rows_.positions[chunk.token_end - 1] / kSplit + 1;
        total_cost_ += Cost(chunk);
        chunks_.push_back(chunk);
      }
    }
  }

  int NumQueries(const Chunk& chunk) const { return (chunk.token_end - chunk.token_begin) * group_; }

  int64_t Cost(const Chunk& chunk) const {
    // Reading a split's keys and values costs about as much as four queries' arithmetic.
    return chunk.num_splits() * (NumQueries(chunk) + 4) * args_.heads.num_kv_heads;
  }

  // A task should be at most a quarter of a thread's share, so a chunk that is more is cut into runs of splits, while
  // there is memory for the sums. The result is the same, cut or whole.
  void LayOutTasks() {
    const int threads = context_.pool.num_threads();
    const int64_t largest = total_cost_ / (threads * 4) + 1;
    for (Chunk& chunk : chunks_) {
      const int64_t head_cost = Cost(chunk) / args_.heads.num_kv_heads;
      const int64_t floats = chunk.num_splits() * args_.heads.num_kv_heads * SumsFloats(NumQueries(chunk));
      const bool whole = threads == 1 || partial_floats_ + floats > kMaxPartialFloats;
      const int64_t pieces = whole ? 1 : std::min(chunk.num_splits(), head_cost / largest + 1);
      chunk.splits_per_task = (chunk.num_splits() + pieces - 1) / pieces;
      chunk.first_task = num_tasks_;
      num_tasks_ += chunk.tasks_per_head() * args_.heads.num_kv_heads;
      chunk.partials = partial_floats_;
      if (chunk.is_cut()) partial_floats_ += floats;
    }
  }

  // Floats of the sums of `queries` queries, and of all that one thread needs.
  int64_t SumsFloats(int64_t queries) const { return RoundUp(2 * queries, 16) + queries * padded_dim_; }
  int64_t ThreadFloats() const {
    return 2 * SumsFloats(max_queries_) + max_queries_ * (padded_dim_ + kSplit) + kSplit * padded_dim_ +
           RoundUp(2 * max_queries_, 16);
  }
  Sums SumsAt(float* memory, int64_t queries) const {
    return {memory, memory + queries, memory + RoundUp(2 * queries, 16)};
  }
  Sums PartialOf(const Chunk& chunk, int kv_head, int64_t split) const {
    const int64_t index = kv_head * chunk.num_splits() + split - chunk.split_begin;
    const int queries = NumQueries(chunk);
    return SumsAt(partials_ + chunk.partials + index * SumsFloats(queries), queries);
  }

  void RunTask(int64_t task, float* memory) const;
  void GatherQueries(const Chunk& chunk, int kv_head, float* queries) const;
  void AttendSplit(const Chunk& chunk, int kv_head, int64_t split, SplitArgs& split_args, int* ranges) const;
  void Merge(const Sums& total, const Sums& next, int num_queries) const;
  void WriteOut(const Chunk& chunk, int kv_head, const Sums& total) const;
  void MergeCutChunks() const;

  Context& context_;
  const Tensor qkv_;
  const AttentionArgs& args_;
  const RowMap& rows_;
  const KvView& kv_;
  const Tensor out_;
  int group_;  // query heads a key-value head
  int tokens_per_chunk_;
  int max_queries_;
  int64_t padded_dim_;
  std::vector<Chunk> chunks_;
  int64_t total_cost_ = 0;
  int64_t num_tasks_ = 0;
  int64_t partial_floats_ = 0;
  float* scratch_ = nullptr;
  float* partials_ = nullptr;
};

// queries[(token, head of the group)] = scaled query, zero beyond head_dim.
void AttentionOp::GatherQueries(const Chunk& chunk, int kv_head, float* queries) const {
  const int dim = args_.heads.head_dim;
  for (int t = chunk.token_begin; t < chunk.token_end; ++t) {
    const float* head = qkv_.Row<float>(t) + static_cast<int64_t>(kv_head) * group_ * dim;
    for (int g = 0; g < group_; ++g, head += dim, queries += padded_dim_) {
      context_.kernels.scale(head, args_.scale, dim, queries);
      std::fill(queries + dim, queries + padded_dim_, 0.0f);
    }
  }
}

// ranges: [2, max_queries_] memory for what each query sees of the split.
void AttentionOp::AttendSplit(const Chunk& chunk, int kv_head, int64_t split, SplitArgs& split_args,
                              int* ranges) const {
  const int64_t split_begin = split * kSplit;
  const int64_t last_position = rows_.positions[chunk.token_end - 1];
  const int64_t first_position = FirstVisible(rows_.positions[chunk.token_begin]);
  const auto element = static_cast<int64_t>(DTypeBytes(kv_.dtype));
  const void* keys[kSplit];
  const void* values[kSplit];
  for (int j = 0; j < kSplit; ++j) {
    // Places that no query sees get a neighbour's row: readable, and masked.
    const int64_t position = std::clamp(split_begin + j, first_position, last_position);
    const int64_t offset = KvOffset(kv_, rows_, chunk.row, position, kv_head) * element;
    keys[j] = static_cast<const char*>(kv_.keys) + offset;
    values[j] = static_cast<const char*>(kv_.values) + offset;
    if (position == last_position) {
      std::fill(keys + j, keys + kSplit, keys[j]);
      std::fill(values + j, values + kSplit, values[j]);
      break;
    }
  }
  for (int q = 0; q < split_args.num_queries; ++q) {
    const int64_t position = rows_.positions[chunk.token_begin + q / group_];
    ranges[q] = static_cast<int>(std::clamp<int64_t>(FirstVisible(position) - split_begin, 0, kSplit));
    ranges[max_queries_ + q] = static_cast<int>(std::clamp<int64_t>(position + 1 - split_begin, 0, kSplit));
  }
  split_args.keys = keys;
  split_args.values = values;
  split_args.begin = ranges;
  split_args.end = ranges + max_queries_;
  context_.kernels.attend_split(split_args);
}

void AttentionOp::Merge(const Sums& total, const Sums& next, int num_queries) const {
  for (int q = 0; q < num_queries; ++q) {
    context_.kernels.merge_split(total.max + q, total.sum + q, total.out + q * padded_dim_, next.max + q, next.sum + q,
                                 next.out + q * padded_dim_, static_cast<int>(padded_dim_));
  }
}

void AttentionOp::WriteOut(const Chunk& chunk, int kv_head, const Sums& total) const {
  const int dim = args_.heads.head_dim;
  int q = 0;
  for (int t = chunk.token_begin; t < chunk.token_end; ++t) {
    float* head = out_.Row<float>(t) + static_cast<int64_t>(kv_head) * group_ * dim;
    for (int g = 0; g < group_; ++g, ++q, head += dim) {
      context_.kernels.scale(total.out + q * padded_dim_, 1.0f / total.sum[q], dim, head);
    }
  }
}

void AttentionOp::RunTask(int64_t task, float* memory) const {
  const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), task,
                                      [](int64_t t, const Chunk& chunk) { return t < chunk.first_task; });
  const Chunk& chunk = *std::prev(after);
  const int64_t within = task - chunk.first_task;
  const int kv_head = static_cast<int>(within / chunk.tasks_per_head());
  const int64_t begin = chunk.split_begin + within % chunk.tasks_per_head() * chunk.splits_per_task;
  const int64_t end = std::min(chunk.split_end, begin + chunk.splits_per_task);

  const int num_queries = NumQueries(chunk);
  const Sums total = SumsAt(memory, max_queries_);
  const Sums fresh = SumsAt(memory + SumsFloats(max_queries_), max_queries_);
  float* const queries = memory + 2 * SumsFloats(max_queries_);
  SplitArgs split_args;
  split_args.queries = queries;
  split_args.num_queries = num_queries;
  split_args.head_dim = args_.heads.head_dim;
  split_args.padded_dim = static_cast<int>(padded_dim_);
  split_args.kv_dtype = kv_.dtype;
  split_args.scores = queries + max_queries_ * padded_dim_;
  split_args.staging = split_args.scores + max_queries_ * kSplit;
  int* const ranges = reinterpret_cast<int*>(split_args.staging + kSplit * padded_dim_);  // [2, max_queries_]
  GatherQueries(chunk, kv_head, queries);
  std::fill_n(total.sum, num_queries, 0.0f);
  for (int64_t split = begin; split < end; ++split) {
    const Sums sums = chunk.is_cut() ? PartialOf(chunk, kv_head, split) : fresh;
    split_args.max = sums.max;
    split_args.sum = sums.sum;
    split_args.out = sums.out;
    AttendSplit(chunk, kv_head, split, split_args, ranges);
    if (!chunk.is_cut()) Merge(total, sums, num_queries);
  }
  if (!chunk.is_cut()) WriteOut(chunk, kv_head, total);
}

// The same merges in the same order as RunTask's, from sums that several tasks left.
void AttentionOp::MergeCutChunks() const {
  if (partial_floats_ == 0) return;
  const int64_t kv_heads = args_.heads.num_kv_heads;
  context_.pool.ParallelFor(static_cast<int64_t>(chunks_.size()) * kv_heads, [&](int64_t task, int thread) {
    const Chunk& chunk = chunks_[static_cast<size_t>(task / kv_heads)];
    if (!chunk.is_cut()) return;
    const int kv_head = static_cast<int>(task % kv_heads);
    const int num_queries = NumQueries(chunk);
    const Sums total = SumsAt(scratch_ + thread * ThreadFloats(), max_queries_);
    std::fill_n(total.sum, num_queries, 0.0f);
    for (int64_t split = chunk.split_begin; split < chunk.split_end; ++split) {
      Merge(total, PartialOf(chunk, kv_head, split), num_queries);
    }
    WriteOut(chunk, kv_head, total);
  });
}

}  // namespace

void Attention(Context& context, Tensor qkv, const AttentionArgs& args, const RowMap& rows, const KvView& kv,
               Tensor out) {
  AttentionOp(context, qkv, args, rows, kv, out).Run();
}

}  // namespace weft::cpu
