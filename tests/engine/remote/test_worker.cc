#include "tests/engine/remote/test_worker.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "engine/remote/step_messages.h"
#include "engine/remote/worker_group.h"
#include "engine/remote/worker_process.h"
#include "grpcpp/grpcpp.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {
namespace {

constexpr char kFault[] = "WEFT_TEST_WORKER_FAULT";

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
  stream->Write(hello);
  v1::EngineMessage message;
  while (stream->Read(&message)) {
    v1::WorkerMessage answer;
    if (message.has_assignment()) {
      if (fault == "exit_in_load") _exit(3);
      answer.mutable_loaded();
    } else if (message.has_connect()) {
      answer.mutable_ready();
    } else if (fault == "silent") {
      continue;
    } else if (fault == "garbage_message") {
      answer.Clear();
    } else {
      answer.mutable_step_done()->set_step(message.step().step() + (fault == "other_step" ? 7 : 0));
      for (int i = 0; i < message.step().sampling_size(); ++i) {
        answer.mutable_step_done()->add_tokens()->set_token(fault == "garbage_result" ? 1 << 30 : 1);
      }
    }
    stream->Write(answer);
  }
  stream->Finish();
}

}  // namespace

WorkerFault::WorkerFault(const std::string& fault) { setenv(kFault, fault.c_str(), 1); }
WorkerFault::~WorkerFault() { unsetenv(kFault); }

int TestWorkerMain(int argc, char** argv) {
  const char* const fault = std::getenv(kFault);
  const char* const token = std::getenv("WEFT_WORKER_TOKEN");
  if (argc < 4 || token == nullptr) return 2;
  if (fault != nullptr) {
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
