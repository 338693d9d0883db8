// A worker process: joins a server, loads what it is told to, and computes its ranks' share of each step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/remote/tls_files.h"

namespace weft {

struct WorkerProcessOptions {
  std::string coordinator;  // "unix:PATH" or "host:port"
  std::string version;      // of this binary: the server's must be the same
  // One that the server started:
  std::string token;
  // One on another host:
  int node_rank = 0;  // 1 .. num_nodes - 1
  int num_nodes = 1;
  int num_sharing = 1;  // of other replicas and this one: they divide the host's cores among them
  std::string address;  // of this host, as the others reach it; empty: that by which it reaches the server
  TlsFiles tls;
  int64_t usable_memory_bytes = 0;  // what the ranks need is held to it; 0: who started this has done that
  // Called when ranks compute on for 10 s after their link has ended: nothing can end them but the process.
  std::function<void()> on_stuck;
  std::function<void(absl::string_view line)> log;
};

// Serves one life of one engine: returns when the link to the server has ended, or with what went wrong here, which the
// server then knows too. FailedPrecondition, PermissionDenied: the server doesn't want this worker, and never will.
// InvalidArgument: options that can't be used.
absl::Status ServeAsWorker(const WorkerProcessOptions& options);

}  // namespace weft
