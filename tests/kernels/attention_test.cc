#include <algorithm>
#include <cmath>

#include "kernels/half.h"
#include "tests/kernels/backend_fixture.h"

namespace weft {
namespace {

// A model's attention: shapes, and a table of rotations.
struct AttentionCase {
  AttentionArgs args;
  int block_size = 16;
  DType kv_dtype = DType::kF32;
  int rotary_dim = 0;
  bool norm = false;

  int64_t qkv_cols() const {
    return static_cast<int64_t>(args.heads.num_heads + 2 * args.heads.num_kv_heads) * args.heads.head_dim;
  }
  int64_t out_cols() const { return static_cast<int64_t>(args.heads.num_heads) * args.heads.head_dim; }
};

AttentionCase MakeCase(int num_heads, int num_kv_heads, int head_dim) {
  AttentionCase setup;
  setup.args.heads = {num_heads, num_kv_heads, head_dim};
  setup.args.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  setup.rotary_dim = head_dim / 2 * 2;
  return setup;
}

RotaryTable MakeRotary(Backend& backend, int rotary_dim, int64_t positions) {
  RotaryTable table;
  table.rotary_dim = rotary_dim;
  table.max_positions = positions;
  table.cos_sin = backend.Allocate(static_cast<size_t>(positions * rotary_dim) * sizeof(float)).value();
  for (int64_t p = 0; p < positions; ++p) {
    for (int i = 0; i < rotary_dim / 2; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * i / rotary_dim);
      table.cos_sin.As<float>()[p * rotary_dim + i] = static_cast<float>(std::cos(angle));
      table.cos_sin.As<float>()[p * rotary_dim + rotary_dim / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

// Sequences of random queries, keys and values, computed chunk by chunk through a backend's paged cache.
class Runner {
 public:
  Runner(Backend& backend, const AttentionCase& setup, int num_sequences, int length)
      : backend_(backend),
        setup_(setup),
        length_(length),
        rotary_(MakeRotary(backend, setup.rotary_dim, length)),
        cache_(backend, num_sequences, length,
               {nullptr, nullptr, setup.kv_dtype, setup.args.heads.num_kv_heads, setup.block_size,
                setup.args.heads.head_dim}),
        q_weight_(RandomFloats(setup.args.heads.head_dim, 21)),
        k_weight_(RandomFloats(setup.args.heads.head_dim, 22)) {
    for (int s = 0; s < num_sequences; ++s) {
      inputs_.push_back(RandomFloats(length * setup.qkv_cols(), 100 + static_cast<uint32_t>(s)));
      outputs_.emplace_back(static_cast<size_t>(length * setup.out_cols()));
    }
  }

  void Step(const std::vector<Chunk>& chunks) {
    const int64_t cols = setup_.qkv_cols();
    std::vector<float> qkv;
    for (const Chunk& chunk : chunks) {
      const auto from = inputs_[chunk.sequence].begin() + chunk.first * cols;
      qkv.insert(qkv.end(), from, from + chunk.count * cols);
    }
    const RowMap rows = cache_.Map(chunks);
    std::vector<float> out(static_cast<size_t>(rows.num_tokens * setup_.out_cols()));
    backend_.RotateAndAppend(View(qkv, rows.num_tokens, cols), setup_.args.heads, norm(), rotary_, rows, cache_.view());
    backend_.Attention(View(qkv, rows.num_tokens, cols), setup_.args, rows, cache_.view(),
                       View(out, rows.num_tokens, setup_.out_cols()));
    for (int r = 0; r < rows.num_rows; ++r) {
      std::copy(out.begin() + rows.row_begin[r] * setup_.out_cols(),
                out.begin() + rows.row_begin[r + 1] * setup_.out_cols(),
                outputs_[chunks[r].sequence].begin() + chunks[r].first * setup_.out_cols());
    }
  }

  // One sequence alone, `chunk` tokens a step.
  void RunInChunks(int sequence, int chunk) {
    for (int p = 0; p < length_; p += chunk) Step({{sequence, p, std::min(chunk, length_ - p)}});
  }

  const std::vector<float>& output(int sequence) const { return outputs_[sequence]; }

  // The output of `sequence` at `position`, computed plainly.
  std::vector<double> Reference(int sequence, int position) const;

 private:
  QkNorm norm() const {
    return setup_.norm ? QkNorm{q_weight_.data(), k_weight_.data(), 1e-5f} : QkNorm{nullptr, nullptr, 0};
  }
  std::vector<double> RotatedHead(int sequence, int position, int head, const std::vector<float>& weight) const;
  double Cached(double x) const {
    return setup_.kv_dtype == DType::kBF16 ? BF16ToF32(F32ToBF16(static_cast<float>(x))) : x;
  }

  Backend& backend_;
  AttentionCase setup_;
  int length_;
  RotaryTable rotary_;
  PagedCache cache_;
  std::vector<float> q_weight_, k_weight_;
  std::vector<std::vector<float>> inputs_, outputs_;
};

std::vector<double> Runner::RotatedHead(int sequence, int position, int head, const std::vector<float>& weight) const {
  const int dim = setup_.args.heads.head_dim;
  const float* const x = &inputs_[sequence][position * setup_.qkv_cols() + head * dim];
  std::vector<double> h(x, x + dim);
  if (setup_.norm) {
    double square = 0;
    for (double v : h) square += v * v;
    for (int i = 0; i < dim; ++i) h[i] *= weight[i] / std::sqrt(square / dim + 1e-5f);
  }
  const int half = setup_.rotary_dim / 2;
  for (int i = 0; i < half; ++i) {
    const double angle = position * std::pow(10000.0, -2.0 * i / setup_.rotary_dim);
    const double a = h[i];
    const double b = h[half + i];
    h[i] = a * std::cos(angle) - b * std::sin(angle);
    h[half + i] = b * std::cos(angle) + a * std::sin(angle);
  }
  return h;
}

std::vector<double> Runner::Reference(int sequence, int position) const {
  const AttentionHeads& heads = setup_.args.heads;
  const int64_t window = setup_.args.sliding_window;
  const int first = window > 0 ? std::max<int>(0, position - static_cast<int>(window) + 1) : 0;
  std::vector<double> out;
  for (int h = 0; h < heads.num_heads; ++h) {
    const int kv_head = h / (heads.num_heads / heads.num_kv_heads);
    const std::vector<double> q = RotatedHead(sequence, position, h, q_weight_);
    std::vector<double> scores;
    for (int p = first; p <= position; ++p) {
      const std::vector<double> k = RotatedHead(sequence, p, heads.num_heads + kv_head, k_weight_);
      double dot = 0;
      for (int i = 0; i < heads.head_dim; ++i) dot += q[i] * Cached(k[i]);
      scores.push_back(dot * setup_.args.scale);
    }
    const double max = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - max);
    for (int i = 0; i < heads.head_dim; ++i) {
      double value = 0;
      for (int p = first; p <= position; ++p) {
        const int64_t column =
            static_cast<int64_t>(heads.num_heads + heads.num_kv_heads + kv_head) * heads.head_dim + i;
        value += scores[p - first] * Cached(inputs_[sequence][p * setup_.qkv_cols() + column]);
      }
      out.push_back(value / sum);
    }
  }
  return out;
}

class AttentionTest : public IsaTest {};

TEST_P(AttentionTest, MatchesTheReference) {
  struct Case {
    int num_heads, num_kv_heads, head_dim, block_size, length;
    int64_t window;
    DType dtype;
    bool norm;
    int rotary_dim;
  };
  const Case cases[] = {
      {1, 1, 16, 16, 40, 0, DType::kF32, false, 16},   {4, 2, 64, 16, 70, 0, DType::kF32, false, 64},
      {9, 3, 64, 32, 50, 0, DType::kF32, true, 64},    {6, 1, 80, 5, 45, 0, DType::kF32, false, 40},
      {2, 2, 20, 7, 300, 0, DType::kF32, true, 20},    {4, 2, 128, 16, 600, 0, DType::kF32, false, 128},
      {2, 1, 32, 16, 600, 30, DType::kF32, false, 32}, {2, 1, 32, 16, 700, 256, DType::kF32, false, 32},
      {4, 2, 64, 16, 300, 0, DType::kBF16, false, 64}, {3, 1, 36, 3, 60, 17, DType::kBF16, true, 12},
  };
  const auto backend = MakeBackend();
  for (const Case& c : cases) {
    SCOPED_TRACE(testing::Message() << "heads " << c.num_heads << "/" << c.num_kv_heads << " dim " << c.head_dim);
    AttentionCase setup = MakeCase(c.num_heads, c.num_kv_heads, c.head_dim);
    setup.block_size = c.block_size;
    setup.kv_dtype = c.dtype;
    setup.args.sliding_window = c.window;
    setup.norm = c.norm;
    setup.rotary_dim = c.rotary_dim;
    Runner runner(*backend, setup, 2, c.length);
    runner.RunInChunks(1, 37);
    // Rounding a key to bfloat16 may fall the other way than the reference's, once in a while.
    const double tolerance = c.dtype == DType::kBF16 ? 2e-3 : 2e-5;
    for (int position : {0, 1, c.length / 2, c.length - 1}) {
      const std::vector<double> expected = runner.Reference(1, position);
      for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(runner.output(1)[position * expected.size() + i], expected[i], tolerance) << position << "," << i;
      }
    }
  }
}

TEST_P(AttentionTest, ATokenIsTheSameHoweverItsStepWasMadeUp) {
  constexpr int kLength = 540;  // more than two splits
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    AttentionCase setup = MakeCase(4, 2, 24);
    setup.kv_dtype = dtype;
    setup.args.sliding_window = dtype == DType::kF32 ? 0 : 300;
    const auto one_thread = MakeBackend(1);
    Runner alone(*one_thread, setup, 2, kLength);
    for (int s = 0; s < 2; ++s) alone.RunInChunks(s, s == 0 ? 1 : kLength);  // sequence 0 token by token
    for (int threads : {1, 2, 3}) {
      const auto backend = MakeBackend(threads);
      // In company, and with a row that is cut by split beside short ones.
      Runner together(*backend, setup, 2, kLength);
      for (int p = 0; p < kLength; p += 108) together.Step({{1, p, 108}, {0, p, 108}});
      // Chunks of odd sizes, and the end token by token.
      Runner chunked(*backend, setup, 2, kLength);
      for (int s = 0; s < 2; ++s) {
        chunked.Step({{s, 0, 7}});
        chunked.Step({{s, 7, 520}});
        for (int p = 527; p < kLength; ++p) chunked.Step({{s, p, 1}});
      }
      for (int s = 0; s < 2; ++s) {
        const int64_t count = kLength * setup.out_cols();
        EXPECT_TRUE(SameBits(alone.output(s).data(), together.output(s).data(), count)) << s << " of " << threads;
        EXPECT_TRUE(SameBits(alone.output(s).data(), chunked.output(s).data(), count)) << s << " of " << threads;
      }
    }
  }
}

TEST_P(AttentionTest, StaleBlocksAndEarlierPositionsOfTheWindowDoNotLeakIn) {
  AttentionCase setup = MakeCase(2, 1, 16);
  setup.args.sliding_window = 8;
  const auto backend = MakeBackend();
  PagedCache cache(*backend, 1, 64, {nullptr, nullptr, DType::kF32, 1, 16, 16});
  const auto poison = [&](const Buffer& buffer) {
    std::fill_n(buffer.As<float>(), buffer.bytes() / sizeof(float), std::nanf(""));
  };
  const Buffer keys(cache.view().keys, 64 * 16 * sizeof(float), [](void*) {});
  const Buffer values(cache.view().values, 64 * 16 * sizeof(float), [](void*) {});
  poison(keys);
  poison(values);
  const RotaryTable rotary = MakeRotary(*backend, 16, 64);
  std::vector<float> out(16 * 2 * 16);
  for (int first : {20, 36}) {  // 20 .. 27 see NaN before the window fills; 36 .. 51 only their own
    const RowMap rows = cache.Map({{0, first, 16}});
    std::vector<float> qkv = RandomFloats(16 * setup.qkv_cols(), 5);
    backend->RotateAndAppend(View(qkv, 16, setup.qkv_cols()), setup.args.heads, {}, rotary, rows, cache.view());
    backend->Attention(View(qkv, 16, setup.qkv_cols()), setup.args, rows, cache.view(), View(out, 16, 32));
    for (int t = 0; t < 16; ++t) {
      const bool sees_poison = first == 20 && t < 7;
      EXPECT_EQ(std::isnan(out[t * 32]), sees_poison) << first + t;
    }
  }
}

INSTANTIATE_FOR_EACH_ISA(AttentionTest);

}  // namespace
}  // namespace weft
