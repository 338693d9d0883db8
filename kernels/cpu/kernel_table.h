// Makes the table of kernels of one vector type. Included once in each instruction set's source.
#pragma once

#include "kernels/cpu/attention_kernel.h"
#include "kernels/cpu/exp_kernel.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/linear_kernel.h"
#include "kernels/cpu/row_kernels.h"

namespace weft::cpu {

template <class S>
static constexpr Kernels MakeKernels(Isa isa) {
  Kernels kernels{};
  kernels.isa = isa;
  kernels.linear = LinearColumns<S>;
  kernels.quantize_row = QuantizeRow<S>;
  kernels.rms_norm = RmsNorm<S>;
  kernels.add = AddTo<S>;
  kernels.add_scaled = AddScaled<S>;
  kernels.swiglu = SwiGlu<S>;
  kernels.rotate = Rotate<S>;
  kernels.store_bf16 = StoreBf16Row<S>;
  kernels.attend_split = AttendSplit<S>;
  kernels.merge_split = MergeSplit<S>;
  kernels.scale = ScaleBy<S>;
  kernels.max = MaxOf<S>;
  kernels.exp_weights = ExpWeights<S>;
  return kernels;
}

}  // namespace weft::cpu
