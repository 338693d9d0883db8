#include "tests/engine/remote/test_worker.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "engine/remote/step_messages.h"
#include "engine/remote/worker_group.h"
#include "engine/remote/worker_process.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {
namespace {

// Where a test leaves word for the workers that it starts from now on.
std::string FaultFile(pid_t test) { return absl::StrCat(testing::TempDir(), "/weft_worker_fault.", test); }

// Joins, and answers everything as asked, but for what the fault says.
void Pretend(const std::string& coordinator, const std::string& token, absl::string_view fault) {
  const auto stub = v1::Workers::NewStub(grpc::CreateChannel(coordinator, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  const auto stream = stub->Join(&context);
  v1::WorkerMessage hello;
  hello.mutable_hello()->set_protocol(kWorkerProtocol);
  hello.mutable_hello()->set_version(fault == "foreign_version" ? "other" : kTestVersion);
  hello.mutable_hello()->set_token(fault == "foreign_token" ? "guessed" : token);
  if (fault == "no_hello") hello.mutable_ready();
  if (fault != "no_word") stream->Write(hello);
  v1::EngineMessage message;
  while (stream->Read(&message)) {
    v1::WorkerMessage answer;
    if (message.has_assignment()) {
      if (fault == "exit_in_load") _exit(3);
      if (fault == "silent_in_load") continue;
      if (fault == "ready_first") {
        answer.mutable_ready();
      } else {
        v1::RankLoaded& rank = *answer.mutable_loaded()->add_ranks();
        rank.set_rank(message.assignment().ranks(0).rank());
        if (fault != "no_digests") {
          rank.add_digests()->set_name("some.weight");
          rank.mutable_digests(0)->set_digest("0123456789abcdef");
        }
      }
    } else if (message.has_connect()) {
      answer.mutable_ready();
    } else if (fault == "silent") {
      continue;
    } else if (fault == "garbage_message") {
      answer.Clear();
    } else if (fault == "hello_again") {
      answer.mutable_hello();
    } else {
      answer.mutable_step_done()->set_step(message.step().step() + (fault == "other_step" ? 7 : 0));
      for (int i = 0; fault == "flood" && i < 10'000; ++i) {
        if (!stream->Write(answer)) break;
      }
      for (int i = fault == "too_few_tokens" ? 1 : 0; i < message.step().sampling_size(); ++i) {
        answer.mutable_step_done()->add_tokens()->set_token(fault == "garbage_result" ? 1 << 30 : 1);
      }
    }
    stream->Write(answer);
  }
  stream->Finish();
}

}  // namespace

WorkerFault::WorkerFault(const std::string& fault) { std::ofstream(FaultFile(getpid())) << fault; }
WorkerFault::~WorkerFault() { std::remove(FaultFile(getpid()).c_str()); }

int TestWorkerMain(int argc, char** argv) {
  std::string fault;
  std::ifstream(FaultFile(getppid())) >> fault;
  const char* const token = std::getenv("WEFT_WORKER_TOKEN");
  if (argc < 4 || token == nullptr) return 2;
  if (!fault.empty()) {
    Pretend(argv[3], token, fault);
    return 0;
  }
  WorkerProcessOptions options;
  options.coordinator = argv[3];
  options.token = token;
  options.version = kTestVersion;
  options.log = [](absl::string_view) {};
  return absl::IsUnavailable(ServeAsWorker(options)) ? kWorkerLinkLost : 1;
}

std::vector<std::string> TestWorkerCommand() { return {absl::StrCat("/proc/", getpid(), "/exe"), "worker"}; }

}  // namespace weft
