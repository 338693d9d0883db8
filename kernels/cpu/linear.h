// The linear layer on all threads.
#pragma once

#include <cstdint>

#include "kernels/cpu/context.h"
#include "kernels/cpu/linear_input.h"
#include "kernels/tensor.h"

namespace weft::cpu {

inline constexpr int64_t kTasksPerThread = 8;     // so that a thread that loses its core holds up little
inline constexpr int64_t kMinTaskWork = 1 << 15;  // multiply-adds worth handing to another thread

// The operands of a linear of `rows` rows.
LinearArgs MakeLinearArgs(const LinearInput& input, int64_t rows, const Weight& weight, Tensor out);

// See Backend::Linear.
void Linear(Context& context, Tensor x, const Weight& weight, Tensor out);

}  // namespace weft::cpu
