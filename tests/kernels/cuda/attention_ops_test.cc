// Rotation, the paged cache and attention of a CUDA device beside the CPU backend's.
#include <tuple>
#include <vector>

#include "tests/kernels/cuda/ops_fixture.h"

namespace weft {
namespace {

struct AttentionCase {
  AttentionHeads heads;
  int rotary_dim = 0;
  int block_size = 16;
  int64_t sliding_window = 0;
  bool has_norm = false;
};

constexpr AttentionCase kCases[] = {
    {{4, 2, 64}, 64, 16, 0, false}, {{6, 1, 40}, 20, 4, 0, true},   {{2, 2, 128}, 128, 16, 9, false},
    {{3, 3, 33}, 32, 5, 1, true},   {{8, 2, 96}, 96, 32, 40, true}, {{1, 1, 256}, 64, 1, 0, false},
    {{5, 5, 2}, 2, 16, 3, false},
};

// Sequences in chunks of which some begin in the middle of a block; one row is empty.
const std::vector<Chunk> kSteps[] = {
    {{0, 0, 37}, {1, 0, 5}},
    {{1, 5, 1}, {0, 37, 0}, {0, 37, 12}, {2, 0, 1}},
    {{2, 1, 1}, {0, 49, 1}, {1, 6, 30}},
};

class AttentionOpsTest : public OpsTest {
 protected:
  // The same cache, and the same rows, on both.
  struct Side {
    Side(Backend& backend, const AttentionCase& c, DType dtype)
        : cache(backend, 3, 64,
                {.dtype = dtype,
                 .num_kv_heads = c.heads.num_kv_heads,
                 .block_size = c.block_size,
                 .head_dim = c.heads.head_dim}) {
      std::vector<float> angles;
      for (int i = 0; i < 64; ++i) {
        for (int j = 0; j < c.rotary_dim; ++j)
          angles.push_back(static_cast<float>(j < c.rotary_dim / 2 ? std::cos(0.1 * i * (j + 1))
                                                                   : std::sin(0.1 * i * (j - c.rotary_dim / 2 + 1))));
      }
      rotary.cos_sin = backend.Allocate(angles.size() * sizeof(float)).value();
      backend.CopyFromHost(rotary.cos_sin.data(), angles.data(), angles.size() * sizeof(float));
      rotary.rotary_dim = c.rotary_dim;
      rotary.max_positions = 64;
    }

    PagedCache cache;
    RotaryTable rotary;
  };

  // The map's arrays on the device.
  struct DeviceRows {
    DeviceRows(Backend& device, const RowMap& map, size_t num_blocks)
        : positions(device, {map.positions, map.positions + map.num_tokens}),
          row_begin(device, {map.row_begin, map.row_begin + map.num_rows + 1}),
          block_begin(device, {map.block_begin, map.block_begin + map.num_rows}),
          block_ids(device, {map.block_ids, map.block_ids + num_blocks}),
          rows{positions.data(), row_begin.data(), block_begin.data(), block_ids.data(), map.num_rows, map.num_tokens} {
    }

    DeviceArray<int32_t> positions, row_begin, block_begin, block_ids;
    RowMap rows;
  };
};

TEST_P(AttentionOpsTest, MatchTheCpu) {
  for (const AttentionCase& c : kCases) {
    Side device_side(*device_, c, Activations()), cpu_side(cpu_, c, DType::kF32);
    Twin weights = RandomFloat(2, c.heads.head_dim, 5);
    const auto norm_of = [&](Tensor w) {
      return c.has_norm ? QkNorm{w.Row<float>(0), w.Row<float>(1), 1e-5f} : QkNorm{};
    };
    const AttentionArgs args{c.heads, 0.3f, c.sliding_window};
    uint32_t seed = 10;
    for (const std::vector<Chunk>& step : kSteps) {
      const RowMap map = cpu_side.cache.Map(step);
      const DeviceRows device_rows(*device_, map, static_cast<size_t>(map.block_begin[map.num_rows]));
      const int64_t dim = c.heads.head_dim;
      Twin qkv = Random(map.num_tokens, (c.heads.num_heads + 2 * c.heads.num_kv_heads) * dim, ++seed);
      Twin out = Poison(map.num_tokens, c.heads.num_heads * dim);
      device_->RotateAndAppend(qkv.device(), c.heads, norm_of(weights.device()), device_side.rotary, device_rows.rows,
                               device_side.cache.view());
      device_->Attention(qkv.device(), args, device_rows.rows, device_side.cache.view(), out.device());
      cpu_.RotateAndAppend(qkv.cpu(), c.heads, norm_of(weights.cpu()), cpu_side.rotary, map, cpu_side.cache.view());
      cpu_.Attention(qkv.cpu(), args, map, cpu_side.cache.view(), out.cpu());
      // Rounded queries, keys and values on one side: some ulps each.
      out.ExpectNear(8 * Ulp());
    }
  }
}

// A token's bits are its own, in any company and in chunks of any size.
TEST_P(AttentionOpsTest, BitsDependOnTheTokenAlone) {
  const AttentionCase& c = kCases[0];
  const int64_t cols = (c.heads.num_heads + 2 * c.heads.num_kv_heads) * c.heads.head_dim;
  const std::vector<float> values = RandomFloats(50 * cols, 1);
  const auto run = [&](const std::vector<int>& chunks, int neighbours) {
    Side side(*device_, c, Activations());
    std::vector<float> last;
    int begin = 0;
    for (const int count : chunks) {
      std::vector<Chunk> step;
      if (neighbours > 0) step.push_back({1, begin, neighbours});
      step.push_back({0, begin, count});
      std::vector<float> rows = RandomFloats(neighbours * cols, 9);
      rows.insert(rows.end(), values.begin() + begin * cols, values.begin() + (begin + count) * cols);
      const RowMap map = side.cache.Map(step);
      const DeviceRows device_rows(*device_, map, static_cast<size_t>(map.block_begin[map.num_rows]));
      Twin qkv(*device_, Activations(), neighbours + count, cols, rows);
      Twin out = Poison(neighbours + count, c.heads.num_heads * c.heads.head_dim);
      device_->RotateAndAppend(qkv.device(), c.heads, {}, side.rotary, device_rows.rows, side.cache.view());
      device_->Attention(qkv.device(), {c.heads, 0.3f, 0}, device_rows.rows, side.cache.view(), out.device());
      const std::vector<float> all = out.FromDevice();
      last.assign(all.end() - c.heads.num_heads * c.heads.head_dim, all.end());
      begin += count;
    }
    return last;
  };
  const std::vector<float> whole = run({50}, 0);
  EXPECT_EQ(run({1, 30, 18, 1}, 0), whole);
  EXPECT_EQ(run({33, 17}, 3), whole);
}

INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(AttentionOpsTest);

}  // namespace
}  // namespace weft
