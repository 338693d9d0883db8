#include "engine/tensor_read_ahead.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/status_macros.h"

namespace weft {

TensorReadAhead::TensorReadAhead(const TensorSource& source, std::vector<const TensorSpec*> order, LoadMeter& meter,
                                 const ReadAheadOptions& options)
    : source_(source), order_(std::move(order)), meter_(meter), options_(options) {
  for (int i = 0; i < options_.num_threads; ++i) threads_.emplace_back([this] { ReaderMain(); });
}

TensorReadAhead::~TensorReadAhead() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<HostTensor> TensorReadAhead::Next(const TensorSpec& tensor) {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &TensorReadAhead::HasFirst));
  Reading first = std::move(readings_.front());
  CHECK(first.tensor == &tensor, "tensors are taken in their order");
  readings_.pop_front();
  ahead_bytes_ -= first.bytes;
  RETURN_IF_ERROR(first.status);
  return std::move(first.memory);
}

void TensorReadAhead::ReaderMain() {
  absl::MutexLock lock(&mutex_);
  for (;;) {
    mutex_.Await(absl::Condition(this, &TensorReadAhead::HasWorkOrEnds));
    if (stopped_) return;
    if (!HasUnreadRows()) {
      if (num_begun_ == order_.size()) return;
      BeginTensor();
      continue;
    }
    const Slice slice = BeginSlice();
    Reading& reading = *slice.reading;
    mutex_.Unlock();
    const absl::Status status = source_.Read(*reading.tensor, slice.rows, slice.out);
    if (status.ok() && reading.tensor->role == TensorSpec::Role::kMatrix) meter_.Add(slice.bytes);
    mutex_.Lock();
    --reading.num_slices;
    if (status.ok()) continue;
    reading.status.Update(status);
    reading.next_row = reading.tensor->row_part.count;
  }
}

// A tensor that was begun goes first; another begins when there is room for it, or nothing else.
bool TensorReadAhead::HasWorkOrEnds() const {
  if (stopped_ || HasUnreadRows() || num_begun_ == order_.size()) return true;
  return readings_.empty() || ahead_bytes_ + PartBytes(*order_[num_begun_]) <= options_.max_ahead_bytes;
}

bool TensorReadAhead::HasUnreadRows() const { return !readings_.empty() && !readings_.back().AllBegun(); }

bool TensorReadAhead::HasFirst() const {
  return !readings_.empty() && readings_.front().AllBegun() && readings_.front().num_slices == 0;
}

void TensorReadAhead::BeginTensor() {
  const TensorSpec& tensor = *order_[num_begun_++];
  Reading& reading = readings_.emplace_back();
  reading.tensor = &tensor;
  reading.bytes = PartBytes(tensor);
  ahead_bytes_ += reading.bytes;
  absl::StatusOr<HostTensor> memory = AllocateTensor(tensor, source_.dtype(tensor));
  reading.status = memory.status();
  if (memory.ok()) {
    reading.memory = *std::move(memory);
  } else {
    reading.next_row = tensor.row_part.count;
  }
}

TensorReadAhead::Slice TensorReadAhead::BeginSlice() {
  Reading& reading = readings_.back();
  const int64_t num_rows = reading.tensor->row_part.count;
  const int64_t row_bytes = std::max<int64_t>(1, reading.bytes / num_rows);
  const int64_t begin = reading.next_row;
  const int64_t count = std::min(num_rows - begin, std::max<int64_t>(1, options_.slice_bytes / row_bytes));
  reading.next_row += count;
  ++reading.num_slices;
  return {&reading, {begin, count}, reading.memory.data.get() + begin * row_bytes, count * row_bytes};
}

int64_t TensorReadAhead::PartBytes(const TensorSpec& tensor) const {
  return tensor.row_part.count * RowWidth(tensor) * static_cast<int64_t>(DTypeBytes(source_.dtype(tensor)));
}

}  // namespace weft
