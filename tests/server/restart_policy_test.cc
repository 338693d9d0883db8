#include "server/restart_policy.h"

#include "gtest/gtest.h"

namespace weft {
namespace {

constexpr RestartOptions kOptions{
    .limit = 5, .window = absl::Minutes(10), .backoff = absl::Seconds(1), .max_backoff = absl::Seconds(3)};
constexpr absl::Time kStart = absl::UnixEpoch();

TEST(RestartPolicyTest, WaitsLongerEachTimeAndGivesUp) {
  RestartPolicy policy(kOptions);
  EXPECT_EQ(policy.OnDeath(kStart), absl::ZeroDuration());
  EXPECT_EQ(policy.OnDeath(kStart), absl::Seconds(1));
  EXPECT_EQ(policy.OnDeath(kStart), absl::Seconds(2));
  EXPECT_EQ(policy.OnDeath(kStart), absl::Seconds(3)) << "at most";
  EXPECT_EQ(policy.OnDeath(kStart), std::nullopt);
}

TEST(RestartPolicyTest, ForgetsWhatIsLongAgo) {
  RestartPolicy policy(kOptions);
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(policy.OnDeath(kStart + i * absl::Minutes(3)).has_value()) << i;
  }
  EXPECT_EQ(policy.OnDeath(kStart + absl::Hours(100)), absl::ZeroDuration());
}

TEST(RestartPolicyTest, WithoutALimitItNeverOverflows) {
  RestartPolicy policy({.limit = 1 << 20});
  for (int i = 0; i < 1000; ++i) EXPECT_LE(policy.OnDeath(kStart).value(), absl::Seconds(30)) << i;
}

}  // namespace
}  // namespace weft
