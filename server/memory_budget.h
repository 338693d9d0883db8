// A bound on the bytes that many requests hold together.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <utility>

namespace weft {

// Counts; it allocates nothing. One for the process: bodies and messages of both protocols, from their first byte until
// they have become token ids. The first 16 KiB of each hold are free, so that ordinary requests pass when large ones
// have taken all. Outlives its holds. Thread-safe.
class MemoryBudget {
 public:
  explicit MemoryBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}

  static constexpr int64_t kFreeBytes = 16 << 10;  // of each hold

  int64_t used_bytes() const { return used_bytes_.load(); }

  // What one request has taken; given back by destruction.
  class Hold {
   public:
    explicit Hold(MemoryBudget& budget) : budget_(&budget) {}
    Hold(Hold&& other) noexcept : budget_(other.budget_), bytes_(std::exchange(other.bytes_, 0)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() { Release(); }

    // False, and nothing changes, when so much more is over the bound.
    bool Grow(int64_t bytes) {
      const int64_t more = Counted(bytes_ + bytes) - Counted(bytes_);
      if (more > 0 && budget_->used_bytes_.fetch_add(more) + more > budget_->max_bytes_) {
        budget_->used_bytes_ -= more;
        return false;
      }
      bytes_ += bytes;
      return true;
    }
    void Release() { budget_->used_bytes_ -= Counted(std::exchange(bytes_, 0)); }

   private:
    static int64_t Counted(int64_t bytes) { return std::max<int64_t>(bytes - kFreeBytes, 0); }

    MemoryBudget* budget_;
    int64_t bytes_ = 0;
  };

 private:
  const int64_t max_bytes_;
  std::atomic<int64_t> used_bytes_{0};
};

}  // namespace weft
