// The whole server: sockets, model, replicas, and the order in which they come and go.
#pragma once

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "boost/asio/io_context.hpp"
#include "boost/asio/signal_set.hpp"
#include "boost/asio/steady_timer.hpp"
#include "scheduler/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/fair_queue.h"
#include "server/authenticator.h"
#include "server/config.h"
#include "server/front_end_limits.h"
#include "server/generation_service.h"
#include "server/grpc_server.h"
#include "server/health_board.h"
#include "server/http_server.h"
#include "server/memory_budget.h"
#include "server/metrics.h"
#include "server/reloadable_files.h"
#include "server/replica_set.h"
#include "server/served_model.h"

namespace weft {

// Lives on the main thread, whose event loop turns what happens (a signal, the model is loaded, a replica died) into
// the next state:
//
//   loading --> ready --> draining --> ended
//
// What takes time runs on a thread of its own, one for each arrow, and posts its end to the loop, so a signal is always
// heard. A replica that dies is started again, while the others go on; without any, what was accepted waits. Once all
// are in a crash loop, the server refuses everything, says so, and waits for a signal.
class Server {
 public:
  explicit Server(const Config& config, ModelLoader load = LoadServedModel);
  ~Server();

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Once. The exit status of the process.
  int Run();

 private:
  absl::Status OpenSockets();
  void Load();                                       // on loader_
  void OnLoaded(absl::StatusOr<ServedModel> model);  // this and the other On... on the loop
  void StartServing();
  void StartReplicas();
  void OnSignal(int signal);
  void OnStopSignal();
  void BeginDrain();
  void Drain();  // on drainer_
  void OnReplicaChanged(const ReplicaSet::Change& change);
  void OnAllReplicasDown();
  void EndOverdueRequests();
  void WaitForSignal();
  void StopSockets();
  static bool MayPass(const absl::Status& failure);
  void ExitAfter(std::chrono::seconds time, int exit_status);
  void EndWith(int exit_status);

  const Config config_;
  const ModelLoader load_;
  const absl::Time start_ = absl::Now();
  const SystemClock clock_;
  Metrics metrics_;
  MemoryBudget request_bytes_{kMaxRequestBytes};
  HealthBoard health_;
  Authenticator auth_;
  FairQueue queue_;
  Dispatcher dispatcher_;
  ReloadableFiles files_;
  std::optional<ServedModel> model_;
  std::unique_ptr<ReplicaSet> replicas_;
  std::unique_ptr<GenerationService> service_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<GrpcServer> grpc_;
  absl::Mutex stopping_;  // held while the sockets are closed, by the loop or by drainer_

  boost::asio::io_context loop_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer last_resort_;
  boost::asio::steady_timer overdue_timer_;
  std::thread loader_;
  std::thread drainer_;
  bool draining_ = false;
  int exit_status_ = 0;
};

}  // namespace weft
