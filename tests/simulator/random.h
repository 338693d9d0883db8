// The one source of chance in a simulation: everything that is drawn comes from its seed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace weft {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {  // SplitMix64
    uint64_t x = state_ += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }
  // Both ends included.
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Next() % static_cast<uint64_t>(high - low + 1));
  }
  int Int(int low, int high) { return static_cast<int>(Between(low, high)); }
  bool Chance(double probability) { return Unit() < probability; }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  template <typename T>
  T Of(std::initializer_list<T> values) {
    return values.begin()[Next() % values.size()];
  }
  // `value` this often, otherwise 0: most mixes lack most kinds of trouble.
  double Sometimes(double probability, double value) { return Chance(probability) ? value * Unit() : 0; }

 private:
  uint64_t state_;
};

}  // namespace weft
