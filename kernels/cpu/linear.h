// The linear layer on all threads.
#pragma once

#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace weft::cpu {

// See Backend::Linear.
void Linear(Context& context, Tensor x, const Weight& weight, Tensor out);

}  // namespace weft::cpu
