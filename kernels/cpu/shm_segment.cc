#include "kernels/cpu/shm_segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/status_macros.h"

namespace weft::cpu {
namespace {

static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free);

constexpr size_t kMaxPieceBytes = size_t{1} << 30;
constexpr uint64_t kMaxSlots = 1 << 16;
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// A microsecond for a peer that runs on another core, then a few for one that waits for this core.
constexpr int kSpins = 24;
constexpr int kYields = 8;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The ranks may be processes, so these are not the private kind.
void FutexWait(const std::atomic<uint32_t>& word, uint32_t expected, const timespec* timeout = nullptr) {
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, timeout, nullptr, 0);
}

void FutexWakeAll(const std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

struct Layout {
  size_t abort, ranks, rings, stages, slots, end;
};

constexpr size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// The options were checked: nothing here overflows.
Layout LayoutOf(const ShmOptions& options) {
  const auto num_ranks = static_cast<size_t>(options.num_ranks);
  Layout at{};
  at.abort = RoundUp(sizeof(ShmHeader), 64);
  at.ranks = at.abort + sizeof(ShmAbort);
  at.rings = at.ranks + num_ranks * sizeof(ShmRank);
  at.stages = RoundUp(at.rings + num_ranks * num_ranks * sizeof(ShmRing), 4096);
  at.slots = at.stages + num_ranks * 2 * options.stage_bytes;
  const size_t slots = num_ranks * num_ranks * static_cast<size_t>(options.num_slots);
  at.end = RoundUp(at.slots + slots * (sizeof(ShmSlot) + options.slot_bytes), 4096);
  return at;
}

absl::Status Check(const ShmOptions& options) {
  const auto refuse = [](absl::string_view name, uint64_t value) {
    return absl::InvalidArgumentError(absl::StrCat("shared memory segment: ", name, " is ", value));
  };
  if (options.num_ranks < 1 || options.num_ranks > kMaxRanks) {
    return refuse("num_ranks", static_cast<uint64_t>(options.num_ranks));
  }
  for (const auto& [name, bytes] :
       {std::pair("stage_bytes", options.stage_bytes), {"slot_bytes", options.slot_bytes}}) {
    if (bytes == 0 || bytes % 64 != 0 || bytes > kMaxPieceBytes) return refuse(name, bytes);
  }
  if (options.num_slots < 1 || static_cast<uint64_t>(options.num_slots) > kMaxSlots) {
    return refuse("num_slots", static_cast<uint64_t>(options.num_slots));
  }
  return absl::OkStatus();
}

absl::StatusOr<ShmOptions> ReadOptions(int fd) {
  const auto refuse = [](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("not a shared memory segment: ", what...));
  };
  struct stat file;
  ShmHeader header;
  if (fstat(fd, &file) != 0) return refuse(std::strerror(errno));
  if (pread(fd, &header, sizeof(header), 0) != sizeof(header)) return refuse(file.st_size, " bytes");
  if (header.magic != kShmMagic) return refuse("begins with ", absl::Hex(header.magic));
  if (header.version != kShmVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("shared memory segment of version ", header.version, ", this binary has ", kShmVersion));
  }
  // Without the seals a peer could cut the file short, and reading what is gone ends a process.
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return refuse("its size can still change");
  if (header.num_ranks > kMaxRanks) return refuse(header.num_ranks, " ranks");
  if (header.num_slots > kMaxSlots) return refuse(header.num_slots, " slots");
  const ShmOptions options{static_cast<int>(header.num_ranks), header.stage_bytes, header.slot_bytes,
                           static_cast<int>(header.num_slots)};
  RETURN_IF_ERROR(Check(options));
  const size_t wanted = LayoutOf(options).end;
  if (header.total_bytes != wanted || static_cast<uint64_t>(file.st_size) != wanted) {
    return refuse("it has ", file.st_size, " bytes and says ", header.total_bytes, ", its layout takes ", wanted);
  }
  return options;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Create(const ShmOptions& options) {
  RETURN_IF_ERROR(Check(options));
  const size_t bytes = LayoutOf(options).end;
  const int fd = memfd_create("weft-communicator", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return absl::ErrnoToStatus(errno, "memfd_create");
  const ShmHeader header{kShmMagic,           kShmVersion,        static_cast<uint32_t>(options.num_ranks), bytes,
                         options.stage_bytes, options.slot_bytes, static_cast<uint64_t>(options.num_slots)};
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 || fcntl(fd, F_ADD_SEALS, kSeals) != 0 ||
      pwrite(fd, &header, sizeof(header), 0) != sizeof(header)) {
    const absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("shared memory of ", bytes, " bytes"));
    close(fd);
    return status;
  }
  return Map(fd, bytes, options);
}

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Open(int fd) {
  const absl::StatusOr<ShmOptions> options = ReadOptions(fd);
  if (!options.ok()) {
    close(fd);
    return options.status();
  }
  return Map(fd, LayoutOf(*options).end, *options);
}

absl::StatusOr<std::unique_ptr<ShmSegment>> ShmSegment::Map(int fd, size_t bytes, const ShmOptions& options) {
  void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    const absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("mapping ", bytes, " shared bytes"));
    close(fd);
    return status;
  }
  return std::unique_ptr<ShmSegment>(new ShmSegment(fd, static_cast<char*>(base), bytes, options));
}

ShmSegment::ShmSegment(int fd, char* base, size_t bytes, const ShmOptions& options)
    : fd_(fd),
      base_(base),
      bytes_(bytes),
      options_(options),
      spins_((options.num_ranks <= NumUsableCpus() ? kSpins : 0)) {
  // A memfd begins as zeros, and zeros are what all of these begin as.
  const Layout at = LayoutOf(options);
  abort_ = reinterpret_cast<ShmAbort*>(base_ + at.abort);
  ranks_ = reinterpret_cast<ShmRank*>(base_ + at.ranks);
  rings_ = reinterpret_cast<ShmRing*>(base_ + at.rings);
  stages_ = base_ + at.stages;
  slots_ = base_ + at.slots;
}

ShmSegment::~ShmSegment() {
  munmap(base_, bytes_);
  close(fd_);
}

ShmSlot& ShmSegment::slot(int source, int destination, uint64_t number) {
  const auto num_slots = static_cast<size_t>(options_.num_slots);
  const size_t index = RingIndex(source, destination) * num_slots + number % num_slots;
  return *reinterpret_cast<ShmSlot*>(slots_ + index * (sizeof(ShmSlot) + options_.slot_bytes));
}

void ShmSegment::Abort(const absl::Status& status) {
  CHECK(!status.ok(), "an abort has a reason");
  uint32_t state = 0;
  if (abort_->state.compare_exchange_strong(state, 1)) {
    abort_->code = static_cast<uint32_t>(status.code());
    const size_t length = std::min(status.message().size(), sizeof(abort_->message) - 1);
    CopyBytes(abort_->message, status.message().data(), length);
    abort_->message[length] = 0;
    state = 1;
    abort_->state.compare_exchange_strong(state, 2);
    FutexWakeAll(abort_->state);
  } else if (state == 1) {
    // Another is writing, or has died over it: that must not keep the group from its end.
    const timespec patience{1, 0};
    FutexWait(abort_->state, 1, &patience);
    state = 1;
    abort_->state.compare_exchange_strong(state, 3);
  }
  for (int r = 0; r < options_.num_ranks; ++r) Ring(ranks_[r]);
}

absl::Status ShmSegment::status() const {
  const uint32_t state = abort_->state.load();
  if (state < 2) return absl::OkStatus();
  if (state > 2) return absl::AbortedError("the group was aborted");
  const uint32_t code = abort_->code;
  const bool known = code >= 1 && code <= 16;
  return absl::Status(known ? static_cast<absl::StatusCode>(code) : absl::StatusCode::kUnknown,
                      absl::string_view(abort_->message, strnlen(abort_->message, sizeof(abort_->message))));
}

// Either the waiter sees ready() after it has set `sleeping`, or the waker sees `sleeping` after it has made ready()
// true: both sides write, then read, in one total order. A bell that rings between the last look and the sleep changes
// the futex's word, and the sleep ends at once.
bool ShmSegment::WaitUntil(int rank, absl::FunctionRef<bool()> ready) {
  for (int spins = 0; spins < spins_ + kYields; ++spins) {
    if (aborted()) return false;
    if (ready()) return true;
    spins < spins_ ? Pause() : static_cast<void>(sched_yield());
  }
  ShmRank& me = ranks_[rank];
  me.sleeping.store(1);
  bool is_ready = false;
  for (;;) {
    const uint32_t seen = me.bell.load();
    if (aborted()) break;
    is_ready = ready();
    if (is_ready) break;
    FutexWait(me.bell, seen);
  }
  me.sleeping.store(0);
  return is_ready;
}

void ShmSegment::Wake(int rank) {
  if (ranks_[rank].sleeping.load() != 0) Ring(ranks_[rank]);
}

void ShmSegment::Ring(ShmRank& rank) {
  rank.bell.fetch_add(1);
  FutexWakeAll(rank.bell);
}

}  // namespace weft::cpu
