#include "kernels/cpu/gloo_communicator.h"

#include <gloo/transport/address.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <net/if.h>
#include <netdb.h>
#include <pthread.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/gloo_link.h"
#include "kernels/status_macros.h"

namespace weft::cpu {
namespace {

constexpr size_t kMinFrameBytes = 1 << 10;
constexpr size_t kMaxFrameBytes = 64 << 20;
constexpr int kMinFrames = 4;  // a rank is at most two frames of a group op ahead of another
constexpr int kMaxFrames = 1024;
constexpr absl::Duration kMaxTimeout = absl::Hours(100);

// Up to here, and between two ranks always, every rank sums everything by itself: one exchange instead of two.
constexpr size_t kMaxSumAloneBytes = size_t{16} << 10;

// Gloo writes to sockets whose peer may be gone, and that signal ends a process. While one of these lives, it doesn't
// reach this thread, nor the threads that it starts.
class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    sigemptyset(&sigpipe_);
    sigaddset(&sigpipe_, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe_, &before_);
  }
  ~SigpipeBlocked() {
    if (sigismember(&before_, SIGPIPE) == 1) return;
    const timespec now{};
    sigtimedwait(&sigpipe_, nullptr, &now);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  SigpipeBlocked(const SigpipeBlocked&) = delete;
  SigpipeBlocked& operator=(const SigpipeBlocked&) = delete;

 private:
  sigset_t sigpipe_, before_;
};

absl::Status Check(const GlooOptions& options) {
  const auto refuse = [](const auto&... what) { return absl::InvalidArgumentError(absl::StrCat("Gloo: ", what...)); };
  if (options.size < 1 || options.size > kMaxRanks) return refuse("size is ", options.size);
  if (options.rank < 0 || options.rank >= options.size) return refuse("rank ", options.rank, " of ", options.size);
  if (options.frame_bytes < kMinFrameBytes || options.frame_bytes > kMaxFrameBytes || options.frame_bytes % 64 != 0) {
    return refuse("frame_bytes is ", options.frame_bytes);
  }
  if (options.num_frames < kMinFrames || options.num_frames > kMaxFrames) {
    return refuse("num_frames is ", options.num_frames);
  }
  if (options.timeout < absl::Milliseconds(10) || options.timeout > kMaxTimeout) {
    return refuse("timeout is ", absl::FormatDuration(options.timeout));
  }
  if (options.interface.empty() == options.hostname.empty()) return refuse("give one of interface and hostname");
  return absl::OkStatus();
}

// Gloo goes on with rubbish when a host's name can't be resolved, and leaks when an interface isn't there: ask first.
absl::Status CheckName(const GlooOptions& options) {
  if (!options.interface.empty()) {
    if (if_nametoindex(options.interface.c_str()) != 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("Gloo: no interface named ", options.interface));
  }
  addrinfo* found = nullptr;
  const int error = getaddrinfo(options.hostname.c_str(), nullptr, nullptr, &found);
  if (error != 0)
    return absl::InvalidArgumentError(absl::StrCat("Gloo: ", options.hostname, ": ", gai_strerror(error)));
  freeaddrinfo(found);
  return absl::OkStatus();
}

std::string AddressKey(int from, int to) { return absl::StrCat("address of rank ", from, " for rank ", to); }

}  // namespace

absl::StatusOr<std::unique_ptr<GlooCommunicator>> GlooCommunicator::Connect(const GlooOptions& options,
                                                                            Rendezvous& store) {
  RETURN_IF_ERROR(Check(options));
  RETURN_IF_ERROR(CheckName(options));
  std::unique_ptr<GlooCommunicator> made(new GlooCommunicator(options));
  if (options.size == 1) return made;
  RETURN_IF_ERROR(made->Listen());
  RETURN_IF_ERROR(made->MeetPeers(store));
  return made;
}

GlooCommunicator::GlooCommunicator(const GlooOptions& options)
    : options_(options),
      waiter_(std::make_unique<GlooWaiter>(options.timeout)),
      group_(static_cast<size_t>(options.size)),
      messages_(static_cast<size_t>(options.size)) {}

absl::Status GlooCommunicator::Listen() {
  const SigpipeBlocked no_sigpipe;
  gloo::transport::tcp::attr attr;
  attr.iface = options_.interface;
  attr.hostname = options_.hostname;
  try {
    device_ = gloo::transport::tcp::CreateDevice(attr);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gloo: can't listen on ", options_.interface, options_.hostname, ": ", error.what()));
  }
  return absl::OkStatus();
}

absl::Status GlooCommunicator::MeetPeers(Rendezvous& store) {
  const SigpipeBlocked no_sigpipe;
  const absl::MutexLock lock(&op_mutex_);
  int meeting = options_.rank;
  try {
    context_ = device_->createContext(options_.rank, options_.size);
    // Gloo waits five times as long for a connection.
    context_->setTimeout(absl::ToChronoMilliseconds(options_.timeout / 5));
    RETURN_IF_ERROR(ForEachPeer([&](int peer) {
      const std::vector<char> address = context_->createPair(peer)->address().bytes();
      return store.Set(AddressKey(options_.rank, peer), absl::string_view(address.data(), address.size()));
    }));
    // All in one order: of two ranks, one waits to be connected to, and in a circle all would.
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      meeting = peer;
      ASSIGN_OR_RETURN(const std::string address, store.Get(AddressKey(peer, rank()), options_.timeout));
      context_->getPair(peer)->connect(std::vector<char>(address.begin(), address.end()));
      for (auto* links : {&group_, &messages_}) {
        const uint64_t tag = links == &group_ ? 0 : 2;
        (*links)[static_cast<size_t>(peer)] = std::make_unique<GlooLink>(
            context_, *waiter_,
            GlooLink::Options{peer, tag, options_.frame_bytes, static_cast<size_t>(options_.num_frames)});
      }
    }
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("Gloo: rank ", meeting, ": ", error.what()));
  }
  // Nobody goes on, and perhaps away again, before all have connected.
  const Announcement here{CommOp::kBroadcast, 0, 0};
  RETURN_IF_ERROR(SendToAll(here, {}));
  return ForEachPeer([&](int peer) { return CopyFrom(peer, here, nullptr, 0); });
}

GlooCommunicator::~GlooCommunicator() {
  const SigpipeBlocked no_sigpipe;
  const absl::MutexLock lock(&op_mutex_);
  if (status().ok()) {
    for (const auto* links : {&group_, &messages_}) {
      for (const std::unique_ptr<GlooLink>& link : *links) {
        if (link != nullptr && !link->Flush().ok()) break;  // nobody is left to tell
      }
    }
  }
  Close();
}

// Connections close softly, so that the words of an abort arrive before the end.
void GlooCommunicator::Close() {
  for (const std::unique_ptr<GlooLink>& link : group_) {
    if (link != nullptr && !status().ok()) link->SendAbort(status());
  }
  for (auto* links : {&group_, &messages_}) {
    for (std::unique_ptr<GlooLink>& link : *links) link = nullptr;
  }
  context_ = nullptr;
}

void GlooCommunicator::Abort(absl::Status status) {
  waiter_->Abort(std::move(status));  // ends the op that there is
  const SigpipeBlocked no_sigpipe;
  const absl::MutexLock lock(&op_mutex_);
  Close();
}

absl::Status GlooCommunicator::status() const { return waiter_->status(); }

void GlooCommunicator::Run(const Announcement& mine, absl::FunctionRef<absl::Status()> op) {
  const absl::MutexLock lock(&op_mutex_);
  if (!status().ok()) return;
  const OpRecorder::Op recorded(recorder_, mine.op, mine.bytes);
  const SigpipeBlocked no_sigpipe;
  const absl::Status done = op();
  if (done.ok()) return;
  waiter_->Abort(done);
  Close();
}

template <typename Visit>
absl::Status GlooCommunicator::ForEachPeer(Visit visit) {
  // From oneself on, so that not all ranks begin with the same peer.
  for (int i = 1; i < size(); ++i) RETURN_IF_ERROR(visit((rank() + i) % size()));
  return absl::OkStatus();
}

void GlooCommunicator::AllReduceSum(Tensor x) {
  CHECK(x.dtype == DType::kF32, "sums are of floats");
  const Announcement mine{CommOp::kAllReduceSum, 0, DenseBytes(x)};
  Run(mine, [&]() -> absl::Status {
    const bool alone = size() <= 2 || mine.bytes <= kMaxSumAloneBytes;
    const size_t frame = options_.frame_bytes / sizeof(float);
    const size_t piece = alone ? frame : frame * static_cast<size_t>(size());
    const size_t count = mine.bytes / sizeof(float);
    size_t begin = 0;
    do {
      float* const sum = static_cast<float*>(x.data) + begin;
      const size_t n = std::min(piece, count - begin);
      RETURN_IF_ERROR(alone ? SumAlone(mine, sum, n) : SumSlices(mine, sum, n));
      begin += n;
    } while (begin < count);
    return absl::OkStatus();
  });
}

absl::Status GlooCommunicator::SumAlone(const Announcement& mine, float* x, size_t count) {
  RETURN_IF_ERROR(SendToAll(mine, absl::MakeSpan(reinterpret_cast<const char*>(x), count * sizeof(float))));
  ASSIGN_OR_RETURN(const std::vector<const float*> parts, ReceiveParts(mine, x, count));
  SumInRankOrder(parts, x, count);
  return ForEachPeer([&](int peer) {
    group_[static_cast<size_t>(peer)]->Release();
    return absl::OkStatus();
  });
}

// Each rank sums one slice over all ranks and hands it back to them.
absl::Status GlooCommunicator::SumSlices(const Announcement& mine, float* x, size_t count) {
  const auto num_ranks = static_cast<size_t>(size());
  const size_t slice = (count + num_ranks - 1) / num_ranks;
  const auto begin_of = [&](int r) { return std::min(count, static_cast<size_t>(r) * slice); };
  const auto slice_of = [&](int r) {
    return absl::MakeSpan(reinterpret_cast<char*>(x + begin_of(r)), (begin_of(r + 1) - begin_of(r)) * sizeof(float));
  };
  RETURN_IF_ERROR(
      ForEachPeer([&](int peer) { return SendTo(*group_[static_cast<size_t>(peer)], peer, mine, slice_of(peer)); }));
  RETURN_IF_ERROR([&]() -> absl::Status {
    float* const own = x + begin_of(rank());
    const size_t n = begin_of(rank() + 1) - begin_of(rank());
    ASSIGN_OR_RETURN(const std::vector<const float*> parts, ReceiveParts(mine, own, n));
    SumInRankOrder(parts, own, n);
    return ForEachPeer([&](int peer) {
      group_[static_cast<size_t>(peer)]->Release();
      return absl::OkStatus();
    });
  }());
  RETURN_IF_ERROR(SendToAll(mine, slice_of(rank())));
  return ForEachPeer([&](int peer) { return CopyFrom(peer, mine, slice_of(peer).data(), slice_of(peer).size()); });
}

// What each rank has of a sum, this rank's own among it. The frames are still to be released.
absl::StatusOr<std::vector<const float*>> GlooCommunicator::ReceiveParts(const Announcement& mine, const float* own,
                                                                         size_t count) {
  std::vector<const float*> parts(static_cast<size_t>(size()), own);
  RETURN_IF_ERROR(ForEachPeer([&](int peer) -> absl::Status {
    const auto index = static_cast<size_t>(peer);
    ASSIGN_OR_RETURN(const char* const part, ReceiveFrom(*group_[index], peer, mine, count * sizeof(float)));
    parts[index] = reinterpret_cast<const float*>(part);
    return absl::OkStatus();
  }));
  return parts;
}

void GlooCommunicator::AllGather(Tensor x, Tensor out) {
  const Announcement mine{CommOp::kAllGather, 0, DenseBytes(x)};
  CHECK(out.rows == x.rows * size() && out.cols == x.cols && out.dtype == x.dtype, "out has size() times x's rows");
  CHECK(DenseBytes(out) == mine.bytes * static_cast<size_t>(size()), "out is dense");
  Run(mine, [&]() -> absl::Status {
    const auto place = [&](int r) { return static_cast<char*>(out.data) + static_cast<size_t>(r) * mine.bytes; };
    size_t begin = 0;
    do {
      const size_t n = std::min(options_.frame_bytes, mine.bytes - begin);
      RETURN_IF_ERROR(SendToAll(mine, absl::MakeSpan(static_cast<const char*>(x.data) + begin, n)));
      RETURN_IF_ERROR(ForEachPeer([&](int peer) { return CopyFrom(peer, mine, place(peer) + begin, n); }));
      begin += n;
    } while (begin < mine.bytes);
    CopyBytes(place(rank()), x.data, mine.bytes);
    return absl::OkStatus();
  });
}

void GlooCommunicator::Broadcast(Tensor x, int root) {
  CHECK(root >= 0 && root < size(), "the root is a rank");
  const Announcement mine{CommOp::kBroadcast, root, DenseBytes(x)};
  Run(mine, [&]() -> absl::Status {
    // A word from each to each, so that all learn of a rank that doesn't agree; then the root's bytes.
    RETURN_IF_ERROR(SendToAll(mine, {}));
    RETURN_IF_ERROR(ForEachPeer([&](int peer) { return CopyFrom(peer, mine, nullptr, 0); }));
    for (size_t begin = 0; begin < mine.bytes; begin += options_.frame_bytes) {
      char* const piece = static_cast<char*>(x.data) + begin;
      const size_t n = std::min(options_.frame_bytes, mine.bytes - begin);
      RETURN_IF_ERROR(rank() == root ? SendToAll(mine, absl::MakeSpan(piece, n)) : CopyFrom(root, mine, piece, n));
    }
    return absl::OkStatus();
  });
}

void GlooCommunicator::Send(Tensor x, int peer) {
  CHECK(peer >= 0 && peer < size() && peer != rank(), "the peer is another rank");
  const Announcement mine{CommOp::kSend, 0, DenseBytes(x)};
  Run(mine, [&]() -> absl::Status {
    GlooLink& link = *messages_[static_cast<size_t>(peer)];
    size_t begin = 0;
    do {
      const size_t n = std::min(options_.frame_bytes, mine.bytes - begin);
      RETURN_IF_ERROR(SendTo(link, peer, mine, absl::MakeSpan(static_cast<const char*>(x.data) + begin, n)));
      begin += n;
    } while (begin < mine.bytes);
    return absl::OkStatus();
  });
}

void GlooCommunicator::Recv(Tensor x, int peer) {
  CHECK(peer >= 0 && peer < size() && peer != rank(), "the peer is another rank");
  const Announcement mine{CommOp::kRecv, 0, DenseBytes(x)};
  Run(mine, [&]() -> absl::Status {
    GlooLink& link = *messages_[static_cast<size_t>(peer)];
    size_t begin = 0;
    do {
      const size_t n = std::min(options_.frame_bytes, mine.bytes - begin);
      ASSIGN_OR_RETURN(const char* const payload, ReceiveFrom(link, peer, mine, n));
      CopyBytes(static_cast<char*>(x.data) + begin, payload, n);
      link.Release();
      begin += n;
    } while (begin < mine.bytes);
    return absl::OkStatus();
  });
}

absl::Status GlooCommunicator::SendTo(GlooLink& link, int peer, const Announcement& mine,
                                      absl::Span<const char> payload) {
  GlooFrame frame;
  frame.op = static_cast<uint32_t>(mine.op);
  frame.root = mine.root;
  frame.op_bytes = mine.bytes;
  frame.payload_bytes = static_cast<uint32_t>(payload.size());
  const OpRecorder::Clock::time_point begin = OpRecorder::Clock::now();
  recorder_.SetMissing(uint64_t{1} << peer);
  const absl::Status sent = link.Send(frame, payload.data());
  recorder_.SetMissing(0);
  recorder_.AddWaiting(OpRecorder::Clock::now() - begin);
  return sent.ok() ? sent : Explain(peer, sent);
}

absl::Status GlooCommunicator::SendToAll(const Announcement& mine, absl::Span<const char> payload) {
  return ForEachPeer([&](int peer) { return SendTo(*group_[static_cast<size_t>(peer)], peer, mine, payload); });
}

absl::StatusOr<const char*> GlooCommunicator::ReceiveFrom(GlooLink& link, int peer, const Announcement& mine,
                                                          size_t bytes) {
  const OpRecorder::Clock::time_point begin = OpRecorder::Clock::now();
  recorder_.SetMissing(uint64_t{1} << peer);
  const absl::StatusOr<GlooLink::Received> received = link.Receive();
  recorder_.SetMissing(0);
  recorder_.AddWaiting(OpRecorder::Clock::now() - begin);
  if (!received.ok()) return Explain(peer, received.status());
  const GlooFrame& frame = received->frame;
  if (frame.kind != GlooFrame::kData) return Explain(peer, AbortOf(*received));
  Announcement expected = mine;
  if (mine.op == CommOp::kRecv) expected.op = CommOp::kSend;
  if (frame.announcement() != expected) return Disagreement(rank(), mine, peer, frame.announcement());
  if (frame.payload_bytes != bytes)
    return absl::InternalError(absl::StrCat("rank ", peer, ": a frame of another size"));
  return received->payload;
}

absl::Status GlooCommunicator::CopyFrom(int peer, const Announcement& mine, char* to, size_t bytes) {
  GlooLink& link = *group_[static_cast<size_t>(peer)];
  ASSIGN_OR_RETURN(const char* const payload, ReceiveFrom(link, peer, mine, bytes));
  CopyBytes(to, payload, bytes);
  link.Release();
  return absl::OkStatus();
}

// What failed with this peer, in the peer's own words where it left some before it closed the connection.
absl::Status GlooCommunicator::Explain(int peer, const absl::Status& status) {
  absl::Status cause = status;
  if (absl::IsUnavailable(status)) {
    if (absl::Status word = group_[static_cast<size_t>(peer)]->FindAbort(); !word.ok()) cause = std::move(word);
  }
  return absl::Status(cause.code(), absl::StrCat("rank ", peer, ": ", cause.message()));
}

}  // namespace weft::cpu
