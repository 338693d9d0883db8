// On a device threads run as they like: the orders in which the emulated ones are run are all the same.
#include "tests/kernels/cuda_on_cpu/grid.h"

namespace weft::cuda {

void SetOrder(Order, uint64_t) {}

}  // namespace weft::cuda
