#include "kernels/cpu/shm_communicator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

// A step of a group op: write one's own stage, come to the barrier, read the others' stages. Stages alternate, so that
// one barrier a step is enough:
//
//   rank 0   write A0 | barrier 1 | read A | write B0 | barrier 2 | read B | write A0 ...
//   rank 1   write A1 | barrier 1 |      read A       | write B1 | barrier 2 | ...
//
// Whoever writes A0 again has passed barrier 2, and rank 1 came to that one after it had read A. The same holds for
// the announcements, which alternate by barriers.

namespace weft::cpu {
namespace {

// Up to here every rank sums everything by itself: that reads more, but saves a barrier. Measured with
// weft_communicator_bench; see kernels/README.md.
constexpr size_t kMaxSumAloneBytes = size_t{16} << 10;

}  // namespace

absl::StatusOr<std::unique_ptr<ShmCommunicator>> ShmCommunicator::Attach(std::shared_ptr<ShmSegment> segment,
                                                                         int rank) {
  if (rank < 0 || rank >= segment->options().num_ranks) {
    return absl::InvalidArgumentError(absl::StrCat("rank ", rank, " of ", segment->options().num_ranks));
  }
  uint32_t none = 0;
  if (!segment->rank(rank).attached.compare_exchange_strong(none, 1)) {
    return absl::AlreadyExistsError(absl::StrCat("rank ", rank, " was attached before"));
  }
  return std::unique_ptr<ShmCommunicator>(new ShmCommunicator(std::move(segment), rank));
}

ShmCommunicator::ShmCommunicator(std::shared_ptr<ShmSegment> segment, int rank)
    : segment_(std::move(segment)),
      rank_(rank),
      num_sent_(static_cast<size_t>(size())),
      num_received_(static_cast<size_t>(size())) {}

void ShmCommunicator::AllReduceSum(Tensor x) {
  CHECK(x.dtype == DType::kF32, "sums are of floats");
  const size_t bytes = DenseBytes(x);
  if (segment_->aborted()) return;
  const OpRecorder::Op op(recorder_, CommOp::kAllReduceSum, bytes);
  ForEachStep({CommOp::kAllReduceSum, 0, bytes}, x.data, [&](size_t begin, size_t step_bytes) {
    float* const sum = reinterpret_cast<float*>(static_cast<char*>(x.data) + begin);
    const size_t count = step_bytes / sizeof(float);
    if (step_bytes > kMaxSumAloneBytes) return SumSlices(sum, count);
    const float* parts[kMaxRanks];
    for (int r = 0; r < size(); ++r) parts[r] = reinterpret_cast<const float*>(Stage(r));
    SumInRankOrder(absl::MakeSpan(parts, static_cast<size_t>(size())), sum, count);
  });
}

// Each rank sums one slice over all ranks, into its own stage: nobody else reads that slice there before the barrier.
void ShmCommunicator::SumSlices(float* x, size_t count) {
  constexpr size_t kLine = 16;  // floats: slices end at cache lines
  const auto num_ranks = static_cast<size_t>(size());
  const size_t slice = (count / kLine + num_ranks) / num_ranks * kLine;
  const auto begin_of = [&](int r) { return std::min(count, static_cast<size_t>(r) * slice); };
  const size_t begin = begin_of(rank_);
  const float* parts[kMaxRanks];
  for (int r = 0; r < size(); ++r) parts[r] = reinterpret_cast<const float*>(Stage(r)) + begin;
  float* const own = reinterpret_cast<float*>(Stage(rank_)) + begin;
  SumInRankOrder(absl::MakeSpan(parts, num_ranks), own, begin_of(rank_ + 1) - begin);
  if (!Arrive()) return;
  for (int r = 0; r < size(); ++r) {
    const size_t from = begin_of(r);
    CopyBytes(x + from, reinterpret_cast<const float*>(Stage(r)) + from, (begin_of(r + 1) - from) * sizeof(float));
  }
}

void ShmCommunicator::AllGather(Tensor x, Tensor out) {
  const size_t bytes = DenseBytes(x);
  CHECK(out.rows == x.rows * size() && out.cols == x.cols && out.dtype == x.dtype, "out has size() times x's rows");
  CHECK(DenseBytes(out) == bytes * static_cast<size_t>(size()), "out is dense");
  if (segment_->aborted()) return;
  const OpRecorder::Op op(recorder_, CommOp::kAllGather, bytes);
  ForEachStep({CommOp::kAllGather, 0, bytes}, x.data, [&](size_t begin, size_t step_bytes) {
    for (int r = 0; r < size(); ++r) {
      char* const to = static_cast<char*>(out.data) + static_cast<size_t>(r) * bytes + begin;
      CopyBytes(to, r == rank_ ? static_cast<char*>(x.data) + begin : Stage(r), step_bytes);
    }
  });
}

void ShmCommunicator::Broadcast(Tensor x, int root) {
  CHECK(root >= 0 && root < size(), "the root is a rank");
  const size_t bytes = DenseBytes(x);
  if (segment_->aborted()) return;
  const OpRecorder::Op op(recorder_, CommOp::kBroadcast, bytes);
  ForEachStep({CommOp::kBroadcast, root, bytes}, rank_ == root ? x.data : nullptr,
              [&](size_t begin, size_t step_bytes) {
                if (rank_ != root) CopyBytes(static_cast<char*>(x.data) + begin, Stage(root), step_bytes);
              });
}

void ShmCommunicator::ForEachStep(const Announcement& mine, const void* from,
                                  absl::FunctionRef<void(size_t, size_t)> step) {
  auto& announced = segment_->rank(rank_).announced[(phase_ + 1) % 2];
  announced.op.store(static_cast<uint32_t>(mine.op), std::memory_order_relaxed);
  announced.root.store(mine.root, std::memory_order_relaxed);
  announced.bytes.store(mine.bytes, std::memory_order_relaxed);
  size_t begin = 0;
  do {
    const size_t bytes = std::min(mine.bytes - begin, segment_->options().stage_bytes);
    ++num_steps_;
    if (from != nullptr) CopyBytes(Stage(rank_), static_cast<const char*>(from) + begin, bytes);
    if (!Arrive()) return;
    if (begin == 0 && !Agree(mine)) return;
    step(begin, bytes);
    begin += bytes;
  } while (begin < mine.bytes && !segment_->aborted());
}

bool ShmCommunicator::Arrive() {
  segment_->rank(rank_).phase.store(++phase_);
  for (int r = 0; r < size(); ++r) {
    if (r != rank_) segment_->Wake(r);
  }
  return Wait([&] {
    uint64_t missing = 0;
    for (int r = 0; r < size(); ++r) {
      if (segment_->rank(r).phase.load() < phase_) missing |= uint64_t{1} << r;
    }
    return missing;
  });
}

bool ShmCommunicator::Agree(const Announcement& mine) {
  for (int r = 0; r < size(); ++r) {
    const auto& announced = segment_->rank(r).announced[phase_ % 2];
    const Announcement theirs{static_cast<CommOp>(announced.op.load(std::memory_order_relaxed)),
                              announced.root.load(std::memory_order_relaxed),
                              announced.bytes.load(std::memory_order_relaxed)};
    if (theirs == mine) continue;
    segment_->Abort(Disagreement(rank_, mine, r, theirs));
    return false;
  }
  return true;
}

void ShmCommunicator::Send(Tensor x, int peer) {
  CHECK(peer >= 0 && peer < size() && peer != rank_, "the peer is another rank");
  const size_t bytes = DenseBytes(x);
  if (segment_->aborted()) return;
  const OpRecorder::Op op(recorder_, CommOp::kSend, bytes);
  const ShmOptions& options = segment_->options();
  ShmRing& ring = segment_->ring(rank_, peer);
  uint64_t& sent = num_sent_[static_cast<size_t>(peer)];
  size_t begin = 0;
  do {
    const bool room = Wait([&] {
      const bool full = sent - ring.read.load() >= static_cast<uint64_t>(options.num_slots);
      return static_cast<uint64_t>(full) << peer;
    });
    if (!room) return;
    ShmSlot& slot = segment_->slot(rank_, peer, sent);
    const size_t share = std::min(bytes - begin, options.slot_bytes);
    slot.message_bytes.store(bytes, std::memory_order_relaxed);
    CopyBytes(ShmSegment::SlotData(slot), static_cast<const char*>(x.data) + begin, share);
    ring.written.store(++sent);
    segment_->Wake(peer);
    begin += share;
  } while (begin < bytes);
}

void ShmCommunicator::Recv(Tensor x, int peer) {
  CHECK(peer >= 0 && peer < size() && peer != rank_, "the peer is another rank");
  const size_t bytes = DenseBytes(x);
  if (segment_->aborted()) return;
  const OpRecorder::Op op(recorder_, CommOp::kRecv, bytes);
  ShmRing& ring = segment_->ring(peer, rank_);
  uint64_t& received = num_received_[static_cast<size_t>(peer)];
  size_t begin = 0;
  do {
    if (!Wait([&] { return static_cast<uint64_t>(ring.written.load() == received) << peer; })) return;
    ShmSlot& slot = segment_->slot(peer, rank_, received);
    const size_t sent_bytes = slot.message_bytes.load(std::memory_order_relaxed);
    if (sent_bytes != bytes) {
      segment_->Abort(Disagreement(rank_, {CommOp::kRecv, 0, bytes}, peer, {CommOp::kSend, 0, sent_bytes}));
      return;
    }
    const size_t share = std::min(bytes - begin, segment_->options().slot_bytes);
    CopyBytes(static_cast<char*>(x.data) + begin, ShmSegment::SlotData(slot), share);
    ring.read.store(++received);
    segment_->Wake(peer);
    begin += share;
  } while (begin < bytes);
}

// `missing` tells the ranks that are waited for; none: go on.
bool ShmCommunicator::Wait(absl::FunctionRef<uint64_t()> missing) {
  if (missing() == 0) return !segment_->aborted();
  const OpRecorder::Clock::time_point begin = OpRecorder::Clock::now();
  const bool done = segment_->WaitUntil(rank_, [&] {
    const uint64_t ranks = missing();
    recorder_.SetMissing(ranks);
    return ranks == 0;
  });
  recorder_.AddWaiting(OpRecorder::Clock::now() - begin);
  return done;
}

}  // namespace weft::cpu
