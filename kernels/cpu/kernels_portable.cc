#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/simd_portable.h"

namespace weft::cpu {

const Kernels kPortableKernels = MakeKernels<Portable>(Isa::kPortable);

}  // namespace weft::cpu
