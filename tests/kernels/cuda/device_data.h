// Random data on a device and on the CPU backend alike, and comparisons of what ops make of it.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/device.h"
#include "kernels/half.h"
#include "tests/kernels/backend_fixture.h"

namespace weft {

inline float Rounded(float x, DType dtype) {
  if (dtype == DType::kBF16) return BF16ToF32(F32ToBF16(x));
  if (dtype == DType::kF16) return F16ToF32(F32ToF16(x));
  return x;
}

// A matrix that a device and the CPU both have: what the device can hold exactly.
class Twin {
 public:
  Twin(Backend& device, DType dtype, int64_t rows, int64_t cols, std::vector<float> values)
      : device_(&device), dtype_(dtype), rows_(rows), cols_(cols), values_(std::move(values)) {
    std::vector<uint16_t> halves;
    for (float& value : values_) {
      value = Rounded(value, dtype);
      halves.push_back(dtype == DType::kF16 ? F32ToF16(value) : F32ToBF16(value));
    }
    const size_t bytes = values_.size() * DTypeBytes(dtype);
    buffer_ = device.Allocate(bytes).value();
    device.CopyFromHost(buffer_.data(), dtype == DType::kF32 ? static_cast<void*>(values_.data()) : halves.data(),
                        bytes);
  }
  static Twin Random(Backend& device, DType dtype, int64_t rows, int64_t cols, uint32_t seed) {
    return Twin(device, dtype, rows, cols, RandomFloats(rows * cols, seed));
  }
  // What nobody has written yet.
  static Twin Poison(Backend& device, DType dtype, int64_t rows, int64_t cols) {
    return Twin(device, dtype, rows, cols, std::vector<float>(static_cast<size_t>(rows * cols), NAN));
  }

  Tensor device() const { return DenseTensor(buffer_.data(), dtype_, rows_, cols_); }
  Tensor cpu() { return DenseTensor(values_.data(), DType::kF32, rows_, cols_); }

  std::vector<float> FromDevice() const {
    std::vector<float> floats(values_.size());
    if (dtype_ == DType::kF32) {
      device_->CopyToHost(floats.data(), buffer_.data(), floats.size() * sizeof(float));
      EXPECT_TRUE(device_->Synchronize().ok());
      return floats;
    }
    std::vector<uint16_t> halves(values_.size());
    device_->CopyToHost(halves.data(), buffer_.data(), halves.size() * sizeof(uint16_t));
    const absl::Status status = device_->Synchronize();
    EXPECT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < halves.size(); ++i)
      floats[i] = dtype_ == DType::kF16 ? F16ToF32(halves[i]) : BF16ToF32(halves[i]);
    return floats;
  }

  // Both have it, to a part of their magnitude, or of the largest's of the row where sums cancel out.
  void ExpectNear(double tolerance) const {
    const std::vector<float> floats = FromDevice();
    for (int64_t row = 0; row < rows_; ++row) {
      const size_t begin = static_cast<size_t>(row * cols_);
      double largest = 0;
      for (size_t i = begin; i < begin + static_cast<size_t>(cols_); ++i)
        largest = std::max(largest, std::fabs(double{values_[i]}));
      for (size_t i = begin; i < begin + static_cast<size_t>(cols_); ++i) {
        ASSERT_NEAR(floats[i], values_[i], tolerance * largest)
            << "row " << row << " of " << rows_ << ", column " << i - begin << " of " << cols_;
      }
    }
  }

 private:
  Backend* device_;
  DType dtype_;
  int64_t rows_, cols_;
  std::vector<float> values_;
  Buffer buffer_;
};

// An array of integers on a device.
template <typename T>
class DeviceArray {
 public:
  DeviceArray(Backend& device, const std::vector<T>& values)
      : device_(&device), count_(values.size()), buffer_(device.Allocate(values.size() * sizeof(T)).value()) {
    device.CopyFromHost(buffer_.data(), values.data(), values.size() * sizeof(T));
  }
  T* data() const { return buffer_.As<T>(); }
  std::vector<T> FromDevice() const {
    std::vector<T> values(count_);
    device_->CopyToHost(values.data(), buffer_.data(), count_ * sizeof(T));
    EXPECT_TRUE(device_->Synchronize().ok());
    return values;
  }

 private:
  Backend* device_;
  size_t count_;
  Buffer buffer_;
};

}  // namespace weft
