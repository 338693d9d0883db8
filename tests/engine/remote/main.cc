// The tests, or with the word "worker" one of the worker processes that they start.
#include <cstring>

#include "gtest/gtest.h"
#include "tests/engine/remote/test_worker.h"

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "worker") == 0) return weft::TestWorkerMain(argc, argv);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
