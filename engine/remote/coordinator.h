// Where worker processes join: a gRPC server on a Unix socket and, for workers on other hosts, on an address with
// mutual TLS.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/remote/tls_files.h"
#include "engine/remote/worker_seat.h"

namespace weft {

// The path of a Unix socket has 107 bytes at most.
inline constexpr size_t kMaxRuntimeDirBytes = 80;

struct CoordinatorOptions {
  std::string version;  // of this binary: workers must have the same
  int num_nodes = 1;
  std::string runtime_dir = "/tmp";  // in which the socket's private directory is made; kMaxRuntimeDirBytes at most
  std::string address;               // to listen on for other hosts, "host:port"; empty: none is expected
  TlsFiles tls;                      // of that address
  std::function<void(absl::string_view line)> log;
};

// Turns away who isn't expected, has another version, or shows no certificate of the operator's authority. Thread-safe.
class Coordinator {
 public:
  // Errors: InvalidArgument for an address or certificates that can't be used, and the system's own.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(const CoordinatorOptions& options);
  ~Coordinator();  // cuts all links; seats must have no handlers by then

  // Where workers of this host join: "unix:...".
  const std::string& local_address() const;
  int port() const;  // of the other address; 0: there is none

  // The next worker that says this token, or comes from this host, gets the seat. A host may have several, one a
  // replica: who comes first gets the first.
  void Expect(const std::string& token, std::shared_ptr<WorkerSeat> seat);
  void ExpectNode(int node_rank, std::shared_ptr<WorkerSeat> seat);
  // Whoever comes for this seat now is turned away.
  void Forget(const std::shared_ptr<WorkerSeat>& seat);

  // Ranks may leave words under this scope, until it is closed.
  void OpenScope(const std::string& scope);
  void CloseScope(const std::string& scope);

 private:
  class Service;
  explicit Coordinator(std::unique_ptr<Service> service);

  std::unique_ptr<Service> service_;
};

}  // namespace weft
