// The memory that the ranks of one host share: stages for group ops, rings for messages, doorbells, and one word of
// the end. Threads share one ShmSegment; processes map the same memfd.
//
// Layout, version kShmVersion: ShmHeader, ShmAbort, ShmRank [num_ranks], ShmRing [num_ranks^2] (source-major), two
// stages a rank, num_slots slots a ring. Everything is aligned to cache lines; pages that nobody uses cost nothing.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cpu/collective.h"

namespace weft::cpu {

struct ShmOptions {
  int num_ranks = 1;                       // 1 .. kMaxRanks
  size_t stage_bytes = size_t{256} << 10;  // group ops on larger tensors take several steps; a multiple of 64
  size_t slot_bytes = size_t{256} << 10;   // a message takes a slot for each slot_bytes begun, at least one; likewise
  int num_slots = 16;                      // that Send may be ahead of its Recv, for each ordered pair of ranks
};

constexpr uint64_t kShmMagic = 0x6d68735f74666577;  // "weft_shm"
constexpr uint32_t kShmVersion = 1;

// Written once, before anybody else has the segment, and never read again after it was checked.
struct ShmHeader {
  uint64_t magic;
  uint32_t version;
  uint32_t num_ranks;
  uint64_t total_bytes;
  uint64_t stage_bytes;
  uint64_t slot_bytes;
  uint64_t num_slots;
};

struct alignas(64) ShmAbort {
  // 0: none; 1: somebody writes the rest; 2: written; else the reason is lost, with a process that died over it.
  std::atomic<uint32_t> state;
  uint32_t code;  // of absl::StatusCode
  char message[504];
};

// One rank's line in the group. A rank writes its own, and rings the bells of others.
struct alignas(64) ShmRank {
  std::atomic<uint32_t> attached;
  std::atomic<uint32_t> bell;      // futex: raised to wake the rank
  std::atomic<uint32_t> sleeping;  // set around its sleep; nobody else rings for nothing
  // Barriers that the rank has come to; then its word on the op that began with that barrier, for even and odd ones.
  alignas(64) std::atomic<uint64_t> phase;
  struct {
    std::atomic<uint32_t> op;
    std::atomic<int32_t> root;
    std::atomic<uint64_t> bytes;
  } announced[2];
};

struct alignas(64) ShmRing {
  std::atomic<uint64_t> written;  // slots, by the source
  alignas(64) std::atomic<uint64_t> read;
};

struct alignas(64) ShmSlot {
  std::atomic<uint64_t> message_bytes;  // of the whole message; the slot's share of it follows
};

class ShmSegment {
 public:
  // A new segment. Errors: InvalidArgument for options out of range, ResourceExhausted or the system's own.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Create(const ShmOptions& options);
  // Maps the segment behind `fd`, which it takes and closes, also when it fails. Error: InvalidArgument when that isn't
  // a segment of this version whose size can't change any more; says what is wrong.
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Open(int fd);
  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  // For other processes to map. Closed on exec: whoever starts one passes a duplicate on.
  int fd() const { return fd_; }
  const ShmOptions& options() const { return options_; }

  // Ends all ranks' ops in all processes; `status` isn't OK, and the first stays. Any thread of any process that has
  // the segment mapped may call it: a parent does so for a child that died.
  void Abort(const absl::Status& status);
  bool aborted() const { return abort_->state.load() > 1; }
  // What it was aborted with, or OK.
  absl::Status status() const;

  // Sleeps as `rank` until ready() or Abort; false after Abort. Whoever makes ready() true calls Wake(rank) then.
  // One thread waits for a rank at a time.
  bool WaitUntil(int rank, absl::FunctionRef<bool()> ready);
  void Wake(int rank);

  ShmRank& rank(int r) { return ranks_[r]; }
  ShmRing& ring(int source, int destination) { return rings_[RingIndex(source, destination)]; }
  char* stage(int r, uint64_t step) {  // [stage_bytes]
    return stages_ + (static_cast<size_t>(r) * 2 + step % 2) * options_.stage_bytes;
  }
  ShmSlot& slot(int source, int destination, uint64_t number);
  static char* SlotData(ShmSlot& slot) { return reinterpret_cast<char*>(&slot + 1); }  // [slot_bytes]

 private:
  ShmSegment(int fd, char* base, size_t bytes, const ShmOptions& options);
  static absl::StatusOr<std::unique_ptr<ShmSegment>> Map(int fd, size_t bytes, const ShmOptions& options);
  size_t RingIndex(int source, int destination) const {
    return static_cast<size_t>(source) * static_cast<size_t>(options_.num_ranks) + static_cast<size_t>(destination);
  }
  void Ring(ShmRank& rank);

  const int fd_;
  char* const base_;
  const size_t bytes_;
  const ShmOptions options_;
  const int spins_;
  ShmAbort* abort_ = nullptr;
  ShmRank* ranks_ = nullptr;
  ShmRing* rings_ = nullptr;
  char* stages_ = nullptr;
  char* slots_ = nullptr;
};

}  // namespace weft::cpu
