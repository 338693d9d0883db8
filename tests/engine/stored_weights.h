// What a weight holds and what a checkpoint holds, as floats that can be compared.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "gtest/gtest.h"
#include "kernels/backend.h"
#include "kernels/half.h"

namespace weft {

// W, [out, in] row by row, without its bias: what the weight makes of unit vectors.
inline std::vector<float> Unpack(Backend& backend, const Weight& weight) {
  const auto in = static_cast<size_t>(weight.in_features);
  const auto out = static_cast<size_t>(weight.out_features);
  std::vector<float> x((in + 1) * in, 0.0f);  // the last row is zero: it gives the bias
  for (size_t i = 0; i < in; ++i) x[i * in + i] = 1.0f;
  std::vector<float> y((in + 1) * out);
  const auto rows = static_cast<int64_t>(in + 1);
  backend.Linear(DenseTensor(x.data(), DType::kF32, rows, weight.in_features), weight,
                 DenseTensor(y.data(), DType::kF32, rows, weight.out_features));
  EXPECT_TRUE(backend.Synchronize().ok());
  std::vector<float> matrix(out * in);
  for (size_t i = 0; i < in; ++i) {
    for (size_t j = 0; j < out; ++j) matrix[j * in + i] = y[i * out + j] - y[in * out + j];
  }
  return matrix;
}

// The elements of tensors of a checkpoint, one tensor after the other, as floats.
inline std::vector<float> Stored(const Checkpoint& checkpoint, const std::vector<std::string>& names) {
  std::vector<float> values;
  for (const std::string& name : names) {
    const Checkpoint::Entry* entry = checkpoint.Find(name);
    EXPECT_NE(entry, nullptr) << name;
    if (entry == nullptr) return {};
    std::vector<char> bytes(entry->info.end - entry->info.begin);
    EXPECT_TRUE(checkpoint.Read(*entry, 0, bytes.size(), bytes.data()).ok());
    const DType dtype = *entry->info.type->dtype;
    for (size_t at = 0; at < bytes.size(); at += DTypeBytes(dtype)) {
      uint32_t word = 0;
      std::memcpy(&word, bytes.data() + at, DTypeBytes(dtype));
      const auto half = static_cast<uint16_t>(word);
      values.push_back(dtype == DType::kF32 ? std::bit_cast<float>(word)
                                            : (dtype == DType::kF16 ? F16ToF32(half) : BF16ToF32(half)));
    }
  }
  return values;
}

}  // namespace weft
