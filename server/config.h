// Everything an operator may set: nested plain structs with their defaults and units. Flags, WEFT_* environment
// variables and a file fill them, in that order of precedence, in one place (config_flags.cc); the rest of the program
// gets them by const reference.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/weight_options.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "server/prefix_cache.h"
#include "server/restart_policy.h"
#include "server/worker_options.h"

namespace weft {

struct ModelOptions {
  std::string dir;                        // a Hugging Face model directory
  std::vector<std::string> served_names;  // empty: the directory's last component
  std::string manifest_file;              // what the directory's files must be; empty: any will do
  LoadFormat load_format = LoadFormat::kSafetensors;
  std::optional<DType> weight_dtype;  // none ("auto"): as the checkpoint
  int64_t max_model_len = 0;          // tokens; 0: the model's own limit, clamped to what the KV cache holds
};

struct EngineOptions {
  std::optional<DeviceKind> device;       // none ("auto"): CUDA where there is a device, else the CPU; see ChooseDevice
  bool fast_linears = false;              // of 16 bits on CUDA devices, which are then not batch invariant
  std::optional<DType> activation_dtype;  // of CUDA devices; none: kF16 for a checkpoint of that type, else kBF16
  int replicas = 1;                       // of the model; what follows is each one's, but for memory and threads
  int tensor_parallel_size = 1;           // see ParallelSizes
  int pipeline_parallel_size = 1;
  int expert_parallel_size = 1;
  std::string pipeline_layers;       // "10,12,10"; empty: balanced by cost
  int max_num_seqs = 64;             // sequences that run at once
  int max_num_batched_tokens = 512;  // tokens a step
  int block_size = 16;               // tokens a KV block
  // Of all replicas together. 0: what max_num_seqs sequences of max_model_len need, at most a quarter of memory.
  int64_t kv_cache_bytes = 0;
  PrefixCache prefix_cache = PrefixCache::kTenant;
  int threads = 0;                                   // of the CPU backend, for all replicas together; 0: one a core
  double max_prefill_share = 0.5;                    // of a step's tokens, and of max_itl, while others decode
  absl::Duration max_itl = absl::Milliseconds(200);  // of a step, whoever is in it; 0: no bound
  RestartOptions restarts;
};

// "10,12,10" -> {10, 12, 10}; empty -> {}. InvalidArgument for anything else than positive numbers and commas.
absl::StatusOr<std::vector<int>> ParsePipelineLayers(const std::string& text);

struct QueueOptions {
  int max_queued_requests = 0;                             // 0: 4 x max_num_seqs x replicas
  std::string tenants_file;                                // empty: all tenants are equal
  absl::Duration max_ttft = absl::ZeroDuration();          // who would wait longer is refused at once; 0: nobody is
  absl::Duration affinity_wait = absl::Milliseconds(200);  // for a replica that has the request's prefix
};

struct HttpOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: a free one
  int threads = 1;
  std::string tls_cert_file;  // both or neither: PEM
  std::string tls_key_file;
  int max_connections = 20000;
  int64_t max_body_bytes = 8 << 20;
  int64_t max_header_bytes = 32 << 10;
  std::vector<std::string> allowed_origins;  // of web pages; "*": any; empty: none
  absl::Duration header_timeout = absl::Seconds(10);
  absl::Duration idle_timeout = absl::Seconds(60);
  absl::Duration write_timeout = absl::Seconds(60);        // a reader that takes nothing for so long is cut off
  absl::Duration keep_alive_interval = absl::Seconds(15);  // comment lines in a silent stream
};

struct GrpcOptions {
  int port = 9000;  // on http.host; 0: a free one
  int max_message_bytes = 8 << 20;
  int max_concurrent_streams = 100;  // a connection
};

struct AuthOptions {
  std::string api_keys_file;   // empty: no key is asked for
  bool trust_gateway = false;  // requests name their tenants themselves
  bool insecure = false;       // serve beyond this machine without keys
};

struct LogOptions {
  std::string level = "info";   // trace, debug, info, warn, error
  std::string format = "text";  // text or json
};

struct Config {
  ModelOptions model;
  EngineOptions engine;
  WorkerOptions workers;
  QueueOptions queue;
  HttpOptions http;
  GrpcOptions grpc;
  AuthOptions auth;
  LogOptions log;
  absl::Duration drain_timeout = absl::Seconds(90);

  // InvalidArgument naming the setting, for values that contradict each other or can't work.
  absl::Status Validate() const;
};

}  // namespace weft
