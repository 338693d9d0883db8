#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd_avx512.h"

namespace weft::cpu {

const Kernels kAvx512Kernels = MakeKernels<Avx512>(Isa::kAvx512);

}  // namespace weft::cpu
