// What an operator may choose about the ranks' processes and hosts.
#pragma once

#include <optional>
#include <string>

#include "absl/time/time.h"

namespace weft {

enum class WorkerKind {
  kThreads,    // ranks are threads of the server
  kProcesses,  // ranks are processes: one that dies costs its replica's engine, not the server
};

struct WorkerOptions {
  std::optional<WorkerKind> kind;  // none ("auto"): processes on CUDA devices and with several hosts; see ChooseDevice
  std::string wrapper;             // words before the command that starts a worker, such as "numactl -m 0"
  int num_nodes = 1;               // hosts of the engine
  std::string coordinator;         // "host:port" that workers of other hosts join at; this host's address for them, too
  std::string tls_cert_file;
  std::string tls_key_file;
  std::string tls_ca_file;
  absl::Duration step_timeout = absl::Seconds(5);
  absl::Duration join_timeout = absl::Minutes(10);
};

}  // namespace weft
