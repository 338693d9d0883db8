#include "kernels/cpu/linear.h"

#include <algorithm>

#include "kernels/cpu/panel.h"

namespace weft::cpu {
namespace {

constexpr int64_t kTasksPerThread = 8;     // so that a thread that loses its core holds up little
constexpr int64_t kMinTaskWork = 1 << 15;  // multiply-adds worth handing to another thread

// x as unsigned bytes, one scale a row.
struct QuantizedRows {
  uint8_t* q;
  float* scale;
  int64_t stride;
};

QuantizedRows Quantize(Context& context, Tensor x) {
  QuantizedRows rows;
  rows.stride = (x.cols + 63) / 64 * 64;
  const auto q_bytes = static_cast<size_t>(x.rows * rows.stride);
  rows.q = static_cast<uint8_t*>(context.scratch.Get(q_bytes + static_cast<size_t>(x.rows) * sizeof(float)));
  rows.scale = reinterpret_cast<float*>(rows.q + q_bytes);
  ForRows(context, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      rows.scale[t] = context.kernels.quantize_row(x.Row<float>(t), x.cols, rows.q + t * rows.stride);
    }
  });
  return rows;
}

}  // namespace

void Linear(Context& context, Tensor x, const Weight& weight, Tensor out) {
  if (x.rows == 0) return;
  LinearArgs args;
  args.x = x.data;
  args.x_stride = x.row_stride;
  args.weight = weight.data.As<char>();
  args.panel_bytes = PanelBytes(weight.dtype, weight.in_features);
  args.weight_scale = weight.scale.As<float>();
  args.bias = weight.bias.As<float>();
  args.out = out.Row<float>(0);
  args.out_stride = out.row_stride;
  args.rows = x.rows;
  args.n = weight.out_features;
  args.k = weight.in_features;
  args.dtype = weight.dtype;
  if (weight.dtype == DType::kI8) {
    const QuantizedRows rows = Quantize(context, x);
    args.x = rows.q;
    args.x_stride = rows.stride;
    args.x_scale = rows.scale;
  }

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
