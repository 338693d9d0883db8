#include "server/config.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"
#include "server/front_end_limits.h"

namespace weft {
namespace {

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || absl::StartsWith(host, "127.");
}

absl::Status Refuse(absl::string_view setting, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(setting, ": ", why));
}

absl::Status CheckSizes(const Config& config) {
  const EngineOptions& engine = config.engine;
  if (engine.max_num_batched_tokens < engine.max_num_seqs) {
    return Refuse("max-num-batched-tokens",
                  absl::StrCat(engine.max_num_batched_tokens, " tokens a step are fewer than the ", engine.max_num_seqs,
                               " of max-num-seqs, which each need one"));
  }
  if (config.http.max_body_bytes > kMaxRequestBytes) {
    return Refuse("max-body-size", "is more than the 256 MiB that all requests may hold together");
  }
  if (config.grpc.max_message_bytes > kMaxRequestBytes) {
    return Refuse("max-message-size", "is more than the 256 MiB that all requests may hold together");
  }
  return absl::OkStatus();
}

absl::Status CheckListeners(const Config& config) {
  const bool has_cert = !config.http.tls_cert_file.empty();
  const bool has_key = !config.http.tls_key_file.empty();
  if (has_cert != has_key) return Refuse(has_cert ? "tls-key" : "tls-cert", "tls-cert and tls-key go together");
  if (config.http.host.empty()) return Refuse("host", "is empty");
  if (config.http.port != 0 && config.http.port == config.grpc.port) {
    return Refuse("grpc-port", absl::StrCat(config.grpc.port, " is the HTTP port already"));
  }
  if (!IsLoopback(config.http.host) && config.auth.api_keys_file.empty() && !config.auth.insecure) {
    return Refuse("host", absl::StrCat("'", config.http.host,
                                       "' is reachable from other machines, and anybody could use the model: set "
                                       "api-keys, or say --insecure"));
  }
  return absl::OkStatus();
}

absl::Status CheckWorkers(const Config& config) {
  const WorkerOptions& workers = config.workers;
  if (workers.num_nodes == 1) {
    if (workers.coordinator.empty()) return absl::OkStatus();
    return Refuse("coordinator", "nobody joins there unless num-nodes is more than 1");
  }
  if (workers.kind == WorkerKind::kThreads) return Refuse("num-nodes", "several hosts need --workers process");
  const std::string host = workers.coordinator.substr(0, workers.coordinator.rfind(':'));
  if (host.empty() || host == workers.coordinator || host == "0.0.0.0" || host.find(':') != std::string::npos) {
    return Refuse("coordinator",
                  "say host:port, with the name or IPv4 address by which the other hosts reach this one");
  }
  if (workers.tls_cert_file.empty() || workers.tls_key_file.empty() || workers.tls_ca_file.empty()) {
    return Refuse("worker-tls-cert",
                  "hosts talk over mutual TLS, which needs worker-tls-cert, worker-tls-key and worker-tls-ca");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int>> ParsePipelineLayers(const std::string& text) {
  std::vector<int> layers;
  if (text.empty()) return layers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    int count = 0;
    if (!absl::SimpleAtoi(part, &count) || count < 1 || count > 10'000) {
      return Refuse("pipeline-layers", absl::StrCat("'", part, "' is no number of layers; say for example 10,12,10"));
    }
    layers.push_back(count);
  }
  return layers;
}

absl::Status Config::Validate() const {
  if (model.dir.empty()) return Refuse("model", "is missing: name a model directory");
  for (const std::string& name : model.served_names) {
    if (name.empty()) return Refuse("served-model-name", "a name is empty");
  }
  RETURN_IF_ERROR(CheckSizes(*this));
  RETURN_IF_ERROR(ParsePipelineLayers(engine.pipeline_layers).status());
  RETURN_IF_ERROR(CheckWorkers(*this));
  return CheckListeners(*this);
}

}  // namespace weft
