#include "kernels/cpu/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"

namespace weft::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

constexpr size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// An anonymous mapping of `bytes`, aligned to a huge page, or null.
void* MapAligned(size_t bytes) {
  if (bytes > SIZE_MAX / 2) return nullptr;
  const size_t mapped = bytes + kHugePage;
  void* const base = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return nullptr;
  const auto address = reinterpret_cast<uintptr_t>(base);
  const uintptr_t aligned = RoundUp(address, kHugePage);
  if (aligned > address) munmap(base, aligned - address);
  const uintptr_t end = aligned + bytes;
  if (address + mapped > end) munmap(reinterpret_cast<void*>(end), address + mapped - end);
  // Advice only: without huge pages everything still works, with more TLB misses.
  madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);
  return reinterpret_cast<void*>(aligned);
}

}  // namespace

absl::StatusOr<Buffer> AllocateMemory(size_t bytes) {
  constexpr std::align_val_t kAlignment{64};
  if (bytes < kHugePage) {
    const size_t rounded = RoundUp(std::max<size_t>(bytes, 1), 64);
    void* const data = ::operator new(rounded, kAlignment, std::nothrow);
    if (data == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory left for ", bytes, " bytes"));
    std::fill_n(static_cast<char*>(data), rounded, 0);
    return Buffer(data, bytes, [](void* p) { ::operator delete(p, kAlignment); });
  }
  const size_t rounded = bytes > SIZE_MAX / 2 ? bytes : RoundUp(bytes, 4096);
  void* const data = MapAligned(rounded);
  if (data == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory left for ", bytes, " bytes"));
  return Buffer(data, bytes, [rounded](void* p) { munmap(p, rounded); });
}

void TouchMemory(const Buffer& zeroed, ThreadPool& pool) {
  constexpr size_t kPage = 4096;
  const size_t num_pieces = (zeroed.bytes() + kHugePage - 1) / kHugePage;
  pool.ParallelFor(static_cast<int64_t>(num_pieces), [&](int64_t piece, int) {
    const size_t begin = static_cast<size_t>(piece) * kHugePage;
    const size_t end = std::min(begin + kHugePage, zeroed.bytes());
    for (size_t i = begin; i < end; i += kPage) zeroed.As<volatile char>()[i] = 0;
  });
}

void* Scratch::Get(size_t bytes) {
  if (bytes > buffer_.bytes() || buffer_.empty()) {
    const size_t grown = std::max(bytes, buffer_.bytes() + buffer_.bytes() / 2);
    buffer_ = Buffer();
    absl::StatusOr<Buffer> buffer = AllocateMemory(grown);
    if (!buffer.ok()) throw std::bad_alloc();
    buffer_ = *std::move(buffer);
  }
  return buffer_.data();
}

}  // namespace weft::cpu
