#include "engine/dummy_tensors.h"

#include <array>
#include <cmath>

#include "kernels/half.h"

namespace weft {
namespace {

constexpr double kStddev = 0.02;
constexpr size_t kQuantiles = 4096;
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014):
// applied to a counter it gives the numbers of that generator in any order.
constexpr uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// FNV-1a, 64 bits.
constexpr uint64_t Hash(absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// x with Phi(x) = p, by bisection of erfc.
double NormalQuantile(double p) {
  double low = -8;
  double high = 8;
  while (high - low > 1e-9) {
    const double middle = (low + high) / 2;
    (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
  }
  return low;
}

// Equally likely values of a normal distribution: an index of 12 random bits draws one.
std::array<uint16_t, kQuantiles> MakeQuantiles() {
  std::array<uint16_t, kQuantiles> values{};
  for (size_t i = 0; i < kQuantiles; ++i) {
    const double p = (static_cast<double>(i) + 0.5) / kQuantiles;
    values[i] = F32ToBF16(static_cast<float>(kStddev * NormalQuantile(p)));
  }
  return values;
}

}  // namespace

void FillDummyTensor(uint64_t seed, absl::string_view name, uint64_t first, absl::Span<uint16_t> out) {
  static const std::array<uint16_t, kQuantiles> kValues = MakeQuantiles();
  const uint64_t key = Mix(seed + kGolden) ^ Hash(name);
  constexpr uint64_t kDrawsPerWord = 5;  // of 12 bits
  uint64_t draw = first % kDrawsPerWord;
  size_t i = 0;
  for (uint64_t counter = first / kDrawsPerWord + 1; i < out.size(); ++counter, draw = 0) {
    uint64_t word = Mix(key + counter * kGolden) >> (12 * draw);
    for (; draw < kDrawsPerWord && i < out.size(); ++draw, word >>= 12) out[i++] = kValues[word % kQuantiles];
  }
}

}  // namespace weft
