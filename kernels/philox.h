// Philox 4x32-10: the counter-based random numbers of sampling, the same on every device.
//
// Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). A pure function: four random words for each
// (key, counter), so a draw needs no state and depends on nobody else's draws.
#pragma once

#include <cstdint>

// constexpr, so that a CUDA compiler with --expt-relaxed-constexpr takes these functions into device code as they are.
namespace weft {

struct Philox4 {
  uint32_t word[4];
};

constexpr Philox4 Philox4x32(Philox4 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter.word[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{static_cast<uint32_t>(b >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(b),
                static_cast<uint32_t>(a >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(a)}};
    key0 += 0x9E3779B9;  // golden ratio
    key1 += 0xBB67AE85;  // sqrt(3) - 1
  }
  return counter;
}

// The four words that tokens 4 * group .. 4 * group + 3 use when `sequence` of a request with `seed` draws at
// `position`.
constexpr Philox4 SamplingWords(uint64_t seed, uint32_t sequence, int64_t position, uint32_t group) {
  const auto where = static_cast<uint64_t>(position);
  return Philox4x32({{static_cast<uint32_t>(where), static_cast<uint32_t>(where >> 32), sequence, group}},
                    static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
}

// Uniform in (0, 1), never either end.
constexpr double UnitInterval(uint32_t word) { return (word + 0.5) * 0x1p-32; }

}  // namespace weft
