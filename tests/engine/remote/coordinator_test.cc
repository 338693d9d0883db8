#include "engine/remote/coordinator.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "engine/remote/link_rendezvous.h"
#include "grpcpp/grpcpp.h"
#include "weft/v1/worker.grpc.pb.h"

namespace weft {
namespace {

class CoordinatorTest : public testing::Test {
 protected:
  CoordinatorTest() {
    CoordinatorOptions options;
    options.log = [](absl::string_view) {};
    coordinator_ = *Coordinator::Start(options);
    stub_ =
        v1::Workers::NewStub(grpc::CreateChannel(coordinator_->local_address(), grpc::InsecureChannelCredentials()));
  }

  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<v1::Workers::StubInterface> stub_;
};

TEST_F(CoordinatorTest, RanksFindEachOthersWords) {
  coordinator_->OpenScope("engine");
  LinkRendezvous store(*stub_, "engine", "stage0"), other(*stub_, "engine", "stage1");
  std::string seen;
  std::thread waiter([&] { seen = store.Get("rank 1", absl::Seconds(20)).value_or("none"); });
  EXPECT_TRUE(other.Set("rank 1", "another group's").ok());
  EXPECT_TRUE(store.Set("rank 1", "address").ok());
  waiter.join();
  EXPECT_EQ(seen, "address");
  EXPECT_EQ(store.Set("rank 1", "another").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(store.Get("rank 2", absl::Milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

// So that a worker of another host whose neighbour was lost while they met joins again.
TEST_F(CoordinatorTest, AGroupThatEndsWhileItsRanksMeetIsNoReasonToStayAway) {
  coordinator_->OpenScope("engine");
  LinkRendezvous store(*stub_, "engine", "stage0");
  absl::Status waited;
  std::thread waiter([&] { waited = store.Get("rank 1", absl::Seconds(20)).status(); });
  absl::SleepFor(absl::Milliseconds(50));
  coordinator_->CloseScope("engine");
  waiter.join();
  EXPECT_EQ(waited.code(), absl::StatusCode::kAborted) << waited;
  EXPECT_EQ(store.Set("rank 0", "address").code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace weft
