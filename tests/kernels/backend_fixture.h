// What the kernel tests share: the instruction sets to test, random data, and a paged cache with its row map.
#pragma once

#include <cstdint>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"

namespace weft {

// The instruction sets that this machine runs; says which it leaves out.
inline std::vector<cpu::Isa> TestableIsas() {
  std::vector<cpu::Isa> isas;
  for (cpu::Isa isa : {cpu::Isa::kPortable, cpu::Isa::kAvx2, cpu::Isa::kAvx512}) {
    if (isa <= cpu::DetectIsa()) {
      isas.push_back(isa);
    } else {
      std::cout << "skipping " << cpu::IsaName(isa) << ": this CPU does not run it\n";
    }
  }
  return isas;
}

inline std::vector<float> RandomFloats(int64_t count, uint32_t seed, float stddev = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, stddev);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(generator);
  return values;
}

inline Tensor View(std::vector<float>& data, int64_t rows, int64_t cols) {
  return DenseTensor(data.data(), DType::kF32, rows, cols);
}

// Equal bits, which is what batch invariance means (and what == is not, for NaN and zeros).
inline bool SameBits(const float* a, const float* b, int64_t count) {
  return std::memcmp(a, b, static_cast<size_t>(count) * sizeof(float)) == 0;
}

// Runs with each instruction set as its parameter.
class IsaTest : public testing::TestWithParam<cpu::Isa> {
 protected:
  static std::unique_ptr<cpu::CpuBackend> MakeBackend(int num_threads = 2) {
    return std::make_unique<cpu::CpuBackend>(num_threads, GetParam());
  }
};

inline std::string IsaParamName(const testing::TestParamInfo<cpu::Isa>& info) {
  return std::string(cpu::IsaName(info.param));
}

#define INSTANTIATE_FOR_EACH_ISA(suite) \
  INSTANTIATE_TEST_SUITE_P(Cpu, suite, testing::ValuesIn(TestableIsas()), IsaParamName)

// The rows of one step: row r computes positions first[r] .. first[r] + count[r] of its sequence.
struct Chunk {
  int sequence = 0;
  int first = 0;
  int count = 0;
};

// A paged cache of several sequences whose blocks are dealt in a shuffled order, and row maps into it.
class PagedCache {
 public:
  PagedCache(Backend& backend, int num_sequences, int max_positions, KvView shape)
      : view_(shape), blocks_per_sequence_((max_positions + shape.block_size - 1) / shape.block_size) {
    const int num_blocks = num_sequences * blocks_per_sequence_;
    const size_t bytes = static_cast<size_t>(num_blocks) * static_cast<size_t>(view_.num_kv_heads * view_.block_size) *
                         static_cast<size_t>(view_.head_dim) * DTypeBytes(view_.dtype);
    keys_ = backend.Allocate(bytes).value();
    values_ = backend.Allocate(bytes).value();
    view_.keys = keys_.data();
    view_.values = values_.data();
    for (int i = 0; i < num_blocks; ++i) blocks_.push_back(i);
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(99));
  }

  const KvView& view() const { return view_; }

  // Valid until the next call.
  RowMap Map(const std::vector<Chunk>& chunks) {
    positions_.clear();
    row_begin_ = {0};
    block_begin_ = {0};
    block_ids_.clear();
    for (const Chunk& chunk : chunks) {
      for (int i = 0; i < chunk.count; ++i) positions_.push_back(chunk.first + i);
      row_begin_.push_back(static_cast<int32_t>(positions_.size()));
      const int needed = (chunk.first + chunk.count + view_.block_size - 1) / view_.block_size;
      const auto from = blocks_.begin() + chunk.sequence * blocks_per_sequence_;
      block_ids_.insert(block_ids_.end(), from, from + needed);
      block_begin_.push_back(static_cast<int32_t>(block_ids_.size()));
    }
    return {positions_.data(),
            row_begin_.data(),
            block_begin_.data(),
            block_ids_.data(),
            static_cast<int>(chunks.size()),
            static_cast<int>(positions_.size())};
  }

 private:
  KvView view_;
  int blocks_per_sequence_;
  Buffer keys_;
  Buffer values_;
  std::vector<int32_t> blocks_, positions_, row_begin_, block_begin_, block_ids_;
};

}  // namespace weft
