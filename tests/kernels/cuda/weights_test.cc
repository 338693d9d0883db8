// Weights on a CUDA device: every element as the CPU would store it, whatever the source's type and the pieces.
#include <cstring>
#include <vector>

#include "kernels/stored_row.h"
#include "tests/kernels/cuda/ops_fixture.h"

namespace weft {
namespace {

class WeightsTest : public OpsTest {
 protected:
  std::vector<char> OnHost(const Buffer& buffer) const {
    std::vector<char> bytes(buffer.bytes());
    device_->CopyToHost(bytes.data(), buffer.data(), bytes.size());
    EXPECT_TRUE(device_->Synchronize().ok());
    return bytes;
  }
};

TEST_P(WeightsTest, AreStoredAsTheCpuWould) {
  constexpr int64_t kCols = 36;
  std::vector<float> floats = RandomFloats(11 * kCols, 1);
  std::fill_n(floats.begin() + 2 * kCols, kCols, 0.0f);
  std::vector<uint16_t> bf16, f16;
  for (const float x : floats) {
    bf16.push_back(F32ToBF16(x));
    f16.push_back(F32ToF16(x));
  }
  const HostMatrix parts[] = {{floats.data(), DType::kF32, 4, kCols},
                              {bf16.data() + 4 * kCols, DType::kBF16, 6, kCols},
                              {f16.data() + 10 * kCols, DType::kF16, 1, kCols}};
  for (const DType dtype : {DType::kF32, Activations(), DType::kI8}) {
    const Weight weight = *device_->MakeWeight(parts, {}, dtype);
    const std::vector<char> data = OnHost(weight.data), scales = OnHost(weight.scale);
    const size_t row_bytes = kCols * DTypeBytes(dtype);
    ASSERT_EQ(data.size(), 11 * row_bytes);
    for (int64_t row = 0; row < 11; ++row) {
      std::vector<float> values(kCols);
      std::vector<char> expected(row_bytes);
      StackedRows(parts).Read(row, values.data());
      const float scale = StoreRow(values.data(), kCols, dtype, expected.data()).scale;
      const auto i = static_cast<size_t>(row);
      EXPECT_EQ(std::memcmp(&data[i * row_bytes], expected.data(), row_bytes), 0) << row;
      if (dtype != DType::kI8) continue;
      EXPECT_EQ(std::memcmp(&scales[i * sizeof(float)], &scale, sizeof(float)), 0) << row;
    }
  }
}

// Several times the ring's length, and pieces that end within a matrix.
TEST_P(WeightsTest, OfManyPiecesAreInTheirPlaces) {
  constexpr int64_t kCols = 1 << 20, kRows = 19;
  std::vector<uint16_t> values(kRows * kCols);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint16_t>(i * 7919 % 30000);
  const DType dtype = Activations() == DType::kF32 ? DType::kBF16 : Activations();
  const HostMatrix part{values.data(), dtype, kRows, kCols};
  const Weight weight = *device_->MakeWeight({&part, 1}, {}, dtype);
  EXPECT_EQ(std::memcmp(OnHost(weight.data).data(), values.data(), values.size() * sizeof(uint16_t)), 0);
}

TEST_P(WeightsTest, WithANaNHaveNoBytes) {
  std::vector<float> values(5 * 8, 1.0f);
  values[3 * 8 + 1] = NAN;
  const HostMatrix part{values.data(), DType::kF32, 5, 8};
  const absl::Status status = device_->MakeWeight({&part, 1}, {}, DType::kI8).status();
  EXPECT_EQ(status, NotFinite(3));
}

INSTANTIATE_FOR_EACH_DTYPE_AND_ORDER(WeightsTest);

}  // namespace
}  // namespace weft
