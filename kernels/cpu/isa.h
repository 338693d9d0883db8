// The instruction sets that the CPU backend has kernels for, and the best one that this machine runs.
#pragma once

#include "absl/strings/string_view.h"

namespace weft::cpu {

// In ascending order: a machine that runs one runs all before it.
enum class Isa {
  kPortable,  // whatever the compiler's baseline is
  kAvx2,      // AVX2, FMA, F16C
  kAvx512,    // AVX-512 F, BW, DQ, VL, VNNI
};

Isa DetectIsa();

// "portable", "avx2" or "avx512".
absl::string_view IsaName(Isa isa);

}  // namespace weft::cpu
