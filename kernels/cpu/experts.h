// Routing of tokens to experts and the way back, on all threads. See Backend for what each op does.
#pragma once

#include <cstdint>

#include "kernels/cpu/context.h"
#include "kernels/experts.h"
#include "kernels/tensor.h"

namespace weft::cpu {

void RouteTokens(Context& context, Tensor logits, bool normalize, const TokenExperts& experts);

// On the calling thread: a step has some thousand pairs at most.
void GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups);

void CombineExperts(Context& context, Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out);

void AddGated(Context& context, Tensor gate, Tensor x, Tensor out);

}  // namespace weft::cpu
