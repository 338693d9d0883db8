// A worker process of the tests: a real one, or one that does something wrong.
#pragma once

#include <string>
#include <vector>

namespace weft {

inline constexpr char kTestVersion[] = "test";

// What every worker does that is started while this lives.
class WorkerFault {
 public:
  // One of the words in test_worker.cc.
  explicit WorkerFault(const std::string& fault);
  ~WorkerFault();
};

int TestWorkerMain(int argc, char** argv);

// This program, as a worker.
std::vector<std::string> TestWorkerCommand();

}  // namespace weft
