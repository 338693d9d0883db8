// An Engine executes batches on a group of devices, in the order of their submission.
//
// Owned by one Replica and called from its thread only, but for stats(). Two kinds: LocalEngine (workers are threads of
// this process) and, across processes, RemoteEngine; tests have a fake.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/batch.h"
#include "engine/engine_stats.h"

namespace weft {

// What the scheduler may ask of an engine. Fixed once the engine is up.
struct EngineLimits {
  int64_t max_model_len = 0;       // positions: prompt and output of one sequence
  int num_blocks = 0;              // KV blocks
  int block_size = 0;              // tokens a block
  int max_num_seqs = 0;            // slots, and rows a step
  int max_num_batched_tokens = 0;  // tokens a step
  int32_t vocab_size = 0;
  int num_stages = 1;       // of the pipeline: so many batches, of different sequences, keep all stages busy
  int max_num_scores = 64;  // prompt tokens scored in a step; bounds the logits: 4 bytes x vocab_size each

  int max_num_logits() const { return max_num_seqs + max_num_scores; }  // rows of logits a step
  bool operator==(const EngineLimits&) const = default;
};

class Engine {
 public:
  virtual ~Engine() = default;

  virtual const EngineLimits& limits() const = 0;

  // True while another batch may be submitted: for each stage one may wait while one executes, so no device idles.
  virtual bool HasRoom() const = 0;
  virtual bool HasInFlight() const = 0;

  // Requires HasRoom(). Copies what it needs and returns at once.
  virtual void Submit(const Batch& batch) = 0;

  // Waits for the oldest submitted batch. Requires HasInFlight(). An error means that the engine is dead: every batch
  // in flight is lost, and every later call fails likewise. Unavailable: it was lost to something outside (a process
  // was killed, a host cut off), which no batch is to blame for; with any other error one in flight may be.
  virtual absl::StatusOr<StepResult> Collect() = 0;

  // Not OK once it is known to be dead, also between steps.
  virtual absl::Status status() const = 0;

  // How the ranks spend their time. Thread-safe; slows nothing down.
  virtual EngineStats stats() const = 0;
};

// Opens the engines of a server's replicas, again where one has died. Thread-safe, for different replicas.
class EngineSource {
 public:
  virtual ~EngineSource() = default;

  // The engines that it opens have these.
  virtual const EngineLimits& limits() const = 0;

  // `replica`: 0 .. as many as the source was made for. The one opened for it before has died and been destroyed.
  virtual absl::StatusOr<std::unique_ptr<Engine>> Open(int replica) = 0;

  // Ends every Open that waits for something, now and from now on.
  virtual void Cancel() = 0;

  // From now on called, on any thread, when an engine may have died between steps; null: nobody any more.
  virtual void SetOnDeath(std::function<void()> on_death) = 0;
};

}  // namespace weft
