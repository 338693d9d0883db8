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
// Start, Push and Finish come in order, Start at most once, Finish exactly once and last: from the replica's thread,
// or, for a request that leaves the queue before a replica has it, from the thread that takes it out. They never block
// and never do I/O. Cancelled may be asked from any thread.
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

// One sequence to generate. n choices are n requests.
struct Request {
  int64_t id = 0;  // unique in this process
  std::string tenant;
  absl::Time arrival;
  std::vector<int32_t> prompt;  // at least one token
  SamplingParams sampling;
  StopCriteria stop;
  // Who may share this request's blocks, and the keys of its prompt's full blocks in that scope; made by the front end,
  // because hashing takes a while. None: nobody may.
  std::optional<PrefixKey> prefix_scope;
  std::vector<PrefixKey> prefix_keys;
  std::shared_ptr<TokenSink> sink;
};

}  // namespace weft
