#include "kernels/cpu/experts.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"

namespace weft::cpu {
namespace {

// The k largest of p [n], largest first, equal ones by index. Where all are NaN the ids are 0 .. k, so always valid.
void SelectLargest(const float* p, int64_t n, int k, int32_t* ids, float* values) {
  int found = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (found == k && !(p[i] > values[k - 1])) continue;
    int at = found < k ? found++ : k - 1;
    for (; at > 0 && p[i] > values[at - 1]; --at) {
      values[at] = values[at - 1];
      ids[at] = ids[at - 1];
    }
    values[at] = p[i];
    ids[at] = static_cast<int32_t>(i);
  }
}

void Normalize(float* values, int k) {
  float sum = 0;
  for (int j = 0; j < k; ++j) sum += values[j];
  for (int j = 0; j < k; ++j) values[j] /= sum;
}

}  // namespace

void RouteTokens(Context& context, Tensor logits, bool normalize, const TokenExperts& experts) {
  CHECK(experts.k <= logits.cols, "a configuration with more choices than experts is refused");
  const Kernels& kernels = context.kernels;
  const int64_t n = logits.cols;
  ForRows(context, logits.rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* const p = logits.Row<float>(t);
      const double sum = kernels.exp_weights(p, n, kernels.max(p, n), 1.0f, p);
      kernels.scale(p, static_cast<float>(1.0 / sum), n, p);
      float* const weights = experts.weights + t * experts.k;
      SelectLargest(p, n, experts.k, experts.ids + t * experts.k, weights);
      if (normalize) Normalize(weights, experts.k);
    }
  });
}

void GroupByExpert(const TokenExperts& experts, ExpertRange here, const ExpertGroups& groups) {
  const int64_t num_pairs = experts.num_tokens * experts.k;
  int32_t* const begin = groups.begin;
  std::fill_n(begin, here.count + 1, 0);
  const auto is_here = [&](int32_t expert) { return expert >= 0 && expert < here.count; };
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    const int32_t expert = experts.ids[pair] - here.first;
    if (is_here(expert)) ++begin[expert + 1];
  }
  for (int expert = 0; expert < here.count; ++expert) {
    if (groups.load != nullptr) groups.load[expert] += begin[expert + 1];
    begin[expert + 1] += begin[expert];
  }
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    const int32_t expert = experts.ids[pair] - here.first;
    groups.places[pair] = is_here(expert) ? begin[expert]++ : -1;
    if (is_here(expert)) groups.tokens[groups.places[pair]] = static_cast<int32_t>(pair / experts.k);
  }
  // Each beginning has moved to its end, which is where the next expert begins.
  std::copy_backward(begin, begin + here.count, begin + here.count + 1);
  begin[0] = 0;
}

void CombineExperts(Context& context, Tensor x, const TokenExperts& experts, const int32_t* places, Tensor out) {
  const int64_t k = experts.k;
  ForRows(context, out.rows, out.cols * k, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* const sum = out.Row<float>(t);
      std::fill_n(sum, out.cols, 0.0f);
      for (int64_t pair = t * k; pair < (t + 1) * k; ++pair) {
        if (places[pair] < 0) continue;
        context.kernels.add_scaled(sum, x.Row<float>(places[pair]), experts.weights[pair], out.cols);
      }
    }
  });
}

void AddGated(Context& context, Tensor gate, Tensor x, Tensor out) {
  ForRows(context, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float factor = 1.0f / (1.0f + std::exp(-*gate.Row<float>(t)));
      context.kernels.add_scaled(out.Row<float>(t), x.Row<float>(t), factor, out.cols);
    }
  });
}

}  // namespace weft::cpu
