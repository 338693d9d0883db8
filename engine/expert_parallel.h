// EXPERT PARALLELISM: which experts live on a rank.
//
// The ranks of a stage hold all activations between two blocks, so nothing needs to be sent to where an expert is: each
// rank routes every token, runs the pairs of its own experts, grouped by expert in the order of tokens, and adds up
// what they gave; the AllReduce that ends every block adds up the ranks. A part of the experts may be shared by several
// ranks, each of which then has some columns of each expert, as of an MLP.
#pragma once

#include "engine/model_config.h"
#include "engine/parallel_plan.h"
#include "kernels/experts.h"

namespace weft {

struct ExpertShard {
  ExpertRange here;    // experts
  Range inner;         // columns of each
  Range shared_inner;  // columns of the shared expert, which is spread over all ranks
};
ExpertShard ExpertsOf(const ModelConfig& config, const ParallelPlan& plan);

}  // namespace weft
