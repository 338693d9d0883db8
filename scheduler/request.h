// What the front end asks of the scheduler: token ids in, token ids out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/batch.h"
#include "scheduler/prefix_key.h"

namespace weft {

// Strict classes: while a higher one waits, it gets rows and blocks before all lower ones.
enum class Priority : uint8_t { kLow, kNormal, kHigh };
inline constexpr int kNumPriorities = 3;
inline constexpr Priority kPriorities[kNumPriorities] = {Priority::kLow, Priority::kNormal, Priority::kHigh};

enum class FinishReason {
  kStop,       // a stop token was drawn
  kLength,     // max_tokens, or the model's last position
  kCancelled,  // the reader went away, or the server is shutting down
  kError,      // see FinishEvent::status
};

struct FinishEvent {
  FinishReason reason = FinishReason::kStop;
  std::optional<int32_t> stop_token;  // kStop: which
  absl::Status status;                // kError: why
};

// Where a request's tokens go. Shared by the scheduler, which pushes, and the front end, which reads.
//
// Start, Push and Finish come in order, Start at most once, Finish exactly once and last: from the thread of the
// replica that runs it, or, for a request that leaves the queue without one, from the thread that takes it out. They
// never block and never do I/O. Cancelled may be asked from any thread.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // Before anything else, when the sequence first runs: so many of its prompt's tokens were computed for others before.
  virtual void Start(int64_t num_cached_tokens) = 0;
  virtual void Push(const SampledToken& token) = 0;
  virtual void Finish(const FinishEvent& event) = 0;
  virtual bool Cancelled() const = 0;  // true: nobody reads any more; resources are freed within two steps
};

struct StopCriteria {
  int32_t max_tokens = 0;               // > 0; prompt and max_tokens together fit the model's positions
  std::vector<int32_t> stop_token_ids;  // end-of-sequence ids (unless ignored) and the request's own
};

struct TenantAccount;  // of FairQueue

// How far a request has come. Lives as long as the request, whatever happens to the replicas that run it.
struct Progress {
  std::vector<int32_t> output;  // tokens drawn so far, whenever no replica runs it
  int num_scored = 0;           // prompt tokens whose score the sink has; the first token has none
  bool started = false;         // the sink has been told
  bool charged = false;         // its tenant has paid for the prompt
  int num_overtakers = 0;       // smaller ones that started while it was too large for what was free
  int num_deaths = 0;           // of replicas, with it in a step, that somebody in the step may have caused
  int num_kills = 0;            // ... that came from outside, since it had killed_at tokens, which it still has
  int killed_at = 0;
  // Set when a replica died with it in a step and nobody else to blame: until it has more tokens than it had then, it
  // runs beside no other suspect.
  std::optional<int> suspect_until;
};

// One sequence to generate. n choices are n requests.
struct Request {
  int64_t id = 0;  // unique in this process; a lower one came earlier
  std::string tenant;
  Priority priority = Priority::kNormal;
  absl::Time arrival;
  absl::Time deadline = absl::InfiniteFuture();  // then it ends in DeadlineExceeded, wherever it is
  std::vector<int32_t> prompt;                   // at least one token
  SamplingParams sampling;
  StopCriteria stop;
  // Who may share this request's blocks, and the keys of its first full blocks in that scope: of its prompt, made by
  // the front end because hashing takes a while, and of its output as it grows. None: nobody may.
  std::optional<PrefixKey> prefix_scope;
  std::vector<PrefixKey> prefix_keys;
  std::shared_ptr<TokenSink> sink;

  Progress progress;
  TenantAccount* account = nullptr;  // who pays; the fair queue's
  double weight = 1.0;               // its tenant's, when it was last pulled
  absl::Time queued_at;              // when it last began to wait
  absl::Time offered_at;             // to a replica for the first time since it waits; InfinitePast: not yet
};

// Of one that no replica runs: its prompt's and those it has drawn.
inline int KnownTokens(const Request& request) {
  return static_cast<int>(request.prompt.size() + request.progress.output.size());
}

// Why a request is not to go on, wherever it is; none: it is.
inline std::optional<FinishEvent> EndOf(const Request& request, absl::Time now) {
  if (request.sink->Cancelled()) return FinishEvent{.reason = FinishReason::kCancelled};
  if (now < request.deadline) return std::nullopt;
  return FinishEvent{.reason = FinishReason::kError, .status = absl::DeadlineExceededError("the deadline has passed")};
}

}  // namespace weft
