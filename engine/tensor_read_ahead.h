// Tensors in the order of loading, read by several threads ahead of whoever converts them.
#pragma once

#include <cstdint>
#include <deque>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/load_progress.h"
#include "engine/tensor_list.h"
#include "engine/tensor_source.h"

namespace weft {

struct ReadAheadOptions {
  int num_threads = 4;                           // readers: storage is fastest with several requests under way
  int64_t slice_bytes = int64_t{16} << 20;       // that a thread reads at once: a large tensor is the work of all
  int64_t max_ahead_bytes = int64_t{256} << 20;  // of tensors not taken yet; one larger than this is read alone
};

// Next is called by one thread. Holds at most max(max_ahead_bytes, the largest tensor) of tensors not taken yet.
class TensorReadAhead {
 public:
  // Starts to read. Borrows `source` and `meter`, which counts the bytes of
  // matrices: whose dtype, unlike that of norms and biases, is known before a file is open.
  TensorReadAhead(const TensorSource& source, std::vector<const TensorSpec*> order, LoadMeter& meter,
                  const ReadAheadOptions& options = {});
  ~TensorReadAhead();  // what isn't taken isn't read to its end
  TensorReadAhead(const TensorReadAhead&) = delete;
  TensorReadAhead& operator=(const TensorReadAhead&) = delete;

  // The next tensor of the order, which has to be `tensor`. Waits until it is read. Errors: those of the source, and
  // ResourceExhausted.
  absl::StatusOr<HostTensor> Next(const TensorSpec& tensor);

 private:
  struct Reading {
    const TensorSpec* tensor = nullptr;
    HostTensor memory;
    absl::Status status;   // the first that failed
    int64_t next_row = 0;  // that no thread has begun
    int num_slices = 0;    // being read
    int64_t bytes = 0;     // of `memory`
    bool AllBegun() const { return next_row == tensor->row_part.count; }
  };
  struct Slice {
    Reading* reading = nullptr;
    Range rows;
    std::byte* out = nullptr;
    int64_t bytes = 0;
  };

  void ReaderMain();
  bool HasWorkOrEnds() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasUnreadRows() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasFirst() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void BeginTensor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Slice BeginSlice() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t PartBytes(const TensorSpec& tensor) const;

  const TensorSource& source_;
  const std::vector<const TensorSpec*> order_;
  LoadMeter& meter_;
  const ReadAheadOptions options_;

  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  size_t num_begun_ ABSL_GUARDED_BY(mutex_) = 0;     // of order_
  int64_t ahead_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of readings_
  // Begun, and not taken, in order. Only the last can have rows that nobody reads yet; it doesn't move.
  std::deque<Reading> readings_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace weft
