#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd_avx2.h"

namespace weft::cpu {

const Kernels kAvx2Kernels = MakeKernels<Avx2>(Isa::kAvx2);

}  // namespace weft::cpu
