// In place of the header of this name, for kernels compiled as C++.
#pragma once

#include "tests/kernels/cuda_on_cpu/grid.h"

namespace weft::cuda {

template <typename T>
T& SharedMemory() {
  return *static_cast<T*>(EmulatedSharedMemory());
}

}  // namespace weft::cuda
