#include "kernels/cpu/grouped_linear.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/panel.h"

namespace weft::cpu {
namespace {

// An expert with rows, cut by columns into tasks first_task .. of `panels_per_task` panels each.
struct Group {
  int64_t expert;
  int64_t first_task;
  int64_t panels_per_task;
};

// The groups of one call: an array in scratch memory.
struct Groups {
  Group* data;
  int64_t count = 0;
  int64_t num_tasks = 0;

  const Group& OfTask(int64_t task) const {
    const auto after = [](int64_t t, const Group& group) { return t < group.first_task; };
    return *(std::upper_bound(data, data + count, task, after) - 1);
  }
};

size_t RoundUpToLine(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Cuts all groups into tasks of about equal work.
Groups CutIntoTasks(const int32_t* begin, const ExpertWeights& weights, int num_threads, Group* memory) {
  const auto num_experts = static_cast<int64_t>(weights.experts.size());
  const int64_t panels = NumPanels(weights.experts[0].out_features);
  const int64_t work_per_panel = std::max<int64_t>(1, weights.experts[0].in_features * kPanel);  // and row
  const int64_t work = begin[num_experts] * work_per_panel * panels;
  const int64_t work_per_task = std::max(kMinTaskWork, work / (num_threads * kTasksPerThread));
  Groups groups{memory};
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const int64_t rows = begin[expert + 1] - begin[expert];
    if (rows == 0) continue;
    int64_t panels_per_task = work_per_task / (rows * work_per_panel) + 1;
    panels_per_task += panels_per_task % 2;  // the kernel's widest strips span two
    groups.data[groups.count++] = {expert, groups.num_tasks, panels_per_task};
    groups.num_tasks += (panels + panels_per_task - 1) / panels_per_task;
  }
  return groups;
}

}  // namespace

absl::StatusOr<ExpertWeights> MakeExpertWeights(std::vector<Weight> experts) {
  if (experts.empty()) return absl::InvalidArgumentError("expert weights need at least one expert");
  const Weight& first = experts[0];
  for (size_t i = 1; i < experts.size(); ++i) {
    const Weight& weight = experts[i];
    if (weight.dtype == first.dtype && weight.out_features == first.out_features &&
        weight.in_features == first.in_features && weight.bias.empty() == first.bias.empty()) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat("expert ", i, " is [", weight.out_features, ", ", weight.in_features,
                                                   "], expert 0 is [", first.out_features, ", ", first.in_features,
                                                   "], or they differ in dtype or bias"));
  }
  return ExpertWeights{std::move(experts), Buffer()};
}

void GroupedLinear(Context& context, Tensor x, const int32_t* rows, const int32_t* begin, const ExpertWeights& weights,
                   Tensor out) {
  const DType dtype = weights.experts[0].dtype;
  const LinearRows places{x, rows, begin[weights.experts.size()]};
  if (places.count == 0) return;
  const size_t input_bytes = RoundUpToLine(LinearInputBytes(places, dtype));
  const size_t max_groups = std::min(weights.experts.size(), static_cast<size_t>(places.count));
  char* const memory = static_cast<char*>(context.scratch.Get(input_bytes + max_groups * sizeof(Group)));
  const LinearInput input = PrepareInput(context, places, dtype, memory);
  const Groups groups =
      CutIntoTasks(begin, weights, context.pool.num_threads(), reinterpret_cast<Group*>(memory + input_bytes));

  context.pool.ParallelFor(groups.num_tasks, [&](int64_t task, int) {
    const Group& group = groups.OfTask(task);
    const int64_t first = begin[group.expert];
    const int64_t count = begin[group.expert + 1] - first;
    const Weight& weight = weights.experts[static_cast<size_t>(group.expert)];
    const LinearArgs args = MakeLinearArgs(input.From(first), count, weight, out.Rows(first, count));
    const int64_t column = (task - group.first_task) * group.panels_per_task * kPanel;
    context.kernels.linear(args, column, std::min(args.n, column + group.panels_per_task * kPanel));
  });
}

}  // namespace weft::cpu
