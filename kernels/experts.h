// A mixture of experts as kernels see it: which experts each token goes to, and where its copies stand while experts
// work on them. Pointers are device pointers; T tokens, E experts in a layer, k of them for each token.
//
// A pair is a token and one of its choices; pair t * k + j is token t's j-th best expert. The pairs of the experts on
// this rank are dealt places, those of one expert side by side. How many there are is known on the device alone, so
// whatever is indexed by place has room for T * k rows, of which the first begin[count] hold anything.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/tensor.h"

namespace weft {

// The experts of a layer that are on this rank: first .. first + count.
struct ExpertRange {
  int first = 0;
  int count = 0;
};

struct TokenExperts {
  int32_t* ids = nullptr;    // [T, k] of the whole layer's experts, best first; a token's are different ones
  float* weights = nullptr;  // [T, k]
  int64_t num_tokens = 0;    // T
  int k = 0;
};

struct ExpertGroups {
  int32_t* begin = nullptr;   // [count + 1] expert first + i has places begin[i] .. begin[i + 1]
  int32_t* tokens = nullptr;  // [T * k] of each place its token, ascending within an expert
  int32_t* places = nullptr;  // [T, k] of each pair its place; -1: its expert is on another rank
  int64_t* load = nullptr;    // [count] pairs that each expert has got so far, or null: not counted
};

// The same linear of several experts. Made by Backend::MakeExpertWeights.
struct ExpertWeights {
  std::vector<Weight> experts;  // of one shape and one dtype
  Buffer table;                 // what the backend's kernels need to find them; may be empty
};

}  // namespace weft
