// What happened, in order: a digest always, and lines where somebody wants to read them.
#pragma once

#include <cstdint>
#include <cstdio>

namespace weft {

class Trace {
 public:
  explicit Trace(bool prints) : prints_(prints) {}

  void set_now_us(int64_t now_us) { now_us_ = now_us; }
  void Note(const char* what, int64_t a = 0, int64_t b = 0, int64_t c = 0) {
    for (const char* p = what; *p != '\0'; ++p) Mix(static_cast<uint64_t>(*p));
    for (const int64_t value : {now_us_, a, b, c}) Mix(static_cast<uint64_t>(value));
    if (prints_) {
      std::printf("%10lld us  %-20s %lld %lld %lld\n", static_cast<long long>(now_us_), what,  // NOLINT: printf's types
                  static_cast<long long>(a), static_cast<long long>(b), static_cast<long long>(c));  // NOLINT
    }
  }
  uint64_t digest() const { return digest_; }

 private:
  void Mix(uint64_t value) {
    digest_ = (digest_ ^ value) * 0x9ddfea08eb382d69u;
    digest_ ^= digest_ >> 47;
  }

  const bool prints_;
  int64_t now_us_ = 0;
  uint64_t digest_ = 0;
};

}  // namespace weft
