// Penalties and biases on the logits of the rows that have any. Cost: memory, 8 bytes for each token that is listed,
// and its logit read and written; a row whose raw logits are still wanted is copied before.
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ops.h"

namespace weft::cuda {
namespace {

constexpr int kThreads = 256;

// Rounded after each step, as the CPU rounds: a compiler that fuses two of them would draw other tokens.
__device__ __forceinline__ float Penalized(float logit, const TokenCount& count, const EditJob& job) {
  if (count.in_prompt + count.in_output > 0) {
    logit = logit > 0 ? __fdiv_rn(logit, job.repetition_penalty) : __fmul_rn(logit, job.repetition_penalty);
  }
  if (count.in_output > 0) {
    const float frequency = __fmul_rn(job.frequency_penalty, static_cast<float>(count.in_output));
    logit = __fsub_rn(logit, __fadd_rn(job.presence_penalty, frequency));
  }
  return logit;
}

// A block a job. The counts have a token once, so any thread may have it; biases may name one twice, so a thread has
// the tokens of its residue, in the order of the list.
__global__ void __launch_bounds__(kThreads)
    EditLogitsKernel(const EditJob* jobs, const TokenCount* counts, const LogitBias* biases) {
  const EditJob job = jobs[blockIdx.x];
  if (job.copy != nullptr) {
    for (int i = static_cast<int>(threadIdx.x); i < job.count; i += kThreads) job.copy[i] = job.logits[i];
    __syncthreads();
  }
  for (int i = static_cast<int>(threadIdx.x); i < job.num_counts; i += kThreads) {
    const TokenCount count = counts[job.counts_begin + i];
    const int64_t place = int64_t{count.token} - job.first_token;
    if (place >= 0 && place < job.count) job.logits[place] = Penalized(job.logits[place], count, job);
  }
  __syncthreads();
  for (int i = 0; i < job.num_biases; ++i) {
    const LogitBias bias = biases[job.biases_begin + i];
    const int64_t place = int64_t{bias.token} - job.first_token;
    if (place < 0 || place >= job.count || place % kThreads != threadIdx.x) continue;
    job.logits[place] = __fadd_rn(job.logits[place], bias.bias);
  }
}

}  // namespace

cudaError_t LaunchEditLogits(const EditJob* jobs, int num_jobs, const TokenCount* counts, const LogitBias* biases,
                             cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_jobs)), .block = dim3(kThreads)};
  return Launch(EditLogitsKernel, shape, stream, jobs, counts, biases);
}

}  // namespace weft::cuda
