// The one switch over the types of activations.
#pragma once

#include "kernels/cuda/number.cuh"
#include "kernels/dtype.h"

// Returns what an expression gives in which T is the type that `dtype` names.
#define WEFT_RETURN_FOR(dtype, ...)   \
  do {                                \
    switch (dtype) {                  \
      case ::weft::DType::kBF16: {    \
        using T = ::weft::cuda::BF16; \
        return __VA_ARGS__;           \
      }                               \
      case ::weft::DType::kF16: {     \
        using T = ::weft::cuda::F16;  \
        return __VA_ARGS__;           \
      }                               \
      case ::weft::DType::kF32: {     \
        using T = float;              \
        return __VA_ARGS__;           \
      }                               \
      case ::weft::DType::kI8:        \
        return cudaErrorInvalidValue; \
    }                                 \
    return cudaErrorInvalidValue;     \
  } while (false)
