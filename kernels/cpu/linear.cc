#include "kernels/cpu/linear.h"

#include <algorithm>

#include "kernels/cpu/panel.h"

namespace weft::cpu {

LinearArgs MakeLinearArgs(const LinearInput& input, int64_t rows, const Weight& weight, Tensor out) {
  LinearArgs args;
  args.x = input.x;
  args.x_stride = input.stride;
  args.x_scale = input.x_scale;
  args.weight = weight.data.As<char>();
  args.panel_bytes = PanelBytes(weight.dtype, weight.in_features);
  args.weight_scale = weight.scale.As<float>();
  args.bias = weight.bias.As<float>();
  args.out = out.Row<float>(0);
  args.out_stride = out.row_stride;
  args.rows = rows;
  args.n = weight.out_features;
  args.k = weight.in_features;
  args.dtype = weight.dtype;
  return args;
}

void Linear(Context& context, Tensor x, const Weight& weight, Tensor out) {
  if (x.rows == 0) return;
  const LinearRows rows{x, nullptr, x.rows};
  void* const memory = context.scratch.Get(LinearInputBytes(rows, weight.dtype));
  const LinearArgs args = MakeLinearArgs(PrepareInput(context, rows, weight.dtype, memory), x.rows, weight, out);

  // Threads share out the columns, two panels at a time where there are enough.
  const int64_t panels = NumPanels(args.n);
  const int64_t most_tasks = context.pool.num_threads() * kTasksPerThread;
  const int64_t work_per_panel = std::max<int64_t>(1, args.rows * args.k * kPanel);
  int64_t panels_per_task = std::max((panels + most_tasks - 1) / most_tasks, kMinTaskWork / work_per_panel + 1);
  if (panels >= 2 * most_tasks) panels_per_task += panels_per_task % 2;
  const int64_t num_tasks = (panels + panels_per_task - 1) / panels_per_task;
  context.pool.ParallelFor(num_tasks, [&](int64_t task, int) {
    const int64_t begin = task * panels_per_task * kPanel;
    context.kernels.linear(args, begin, std::min(args.n, begin + panels_per_task * kPanel));
  });
}

}  // namespace weft::cpu
