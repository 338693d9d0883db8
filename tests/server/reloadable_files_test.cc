#include "server/reloadable_files.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "scheduler/clock.h"
#include "server/api_error.h"
#include "tests/fakes/temp_dir.h"
#include "tests/server/fake_serving.h"

namespace weft {
namespace {

// printf %s sk-one | sha256sum, and of sk-two
constexpr char kOne[] = "456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d";
constexpr char kTwo[] = "5e31278545505db1d65bf1dd696e8eaa1edfb00ba455e21c83200c04ef643c91";

class ReloadableFilesTest : public testing::Test {
 protected:
  ReloadableFilesTest() {
    WriteKeys("team", kOne);
    WriteWeight("2");
  }
  void WriteKeys(const std::string& tenant, const std::string& digest) {
    dir_.Write("keys", absl::StrCat(tenant, " ", digest, "\n"));
  }
  void WriteWeight(const std::string& weight) {
    dir_.Write("tenants", absl::StrCat(R"({"tenants":{"team":{"max_queued":5,"weight":)", weight, "}}}"));
  }
  std::string TenantOf(const std::string& key) {
    return auth_.TenantOf({{absl::StrCat("Bearer ", key)}, {}}).value_or("nobody");
  }
  TenantPolicy Policy() { return queue_.policies()->For("team"); }
  double Count(const std::string& name, const std::string& file) {
    return MetricValue(metrics_, absl::StrCat(name, "{file=\"", file, "\"}"));
  }

  const TempDir dir_;
  SystemClock clock_;
  Metrics metrics_;
  Authenticator auth_;
  FairQueue queue_{{}, clock_};
  ReloadableFiles files_{dir_.File("keys"), dir_.File("tenants"), auth_, queue_, metrics_};
};

TEST_F(ReloadableFilesTest, ReloadsBoth) {
  ASSERT_TRUE(files_.Load().ok());
  EXPECT_EQ(TenantOf("sk-one"), "team");
  EXPECT_EQ(Policy().weight, 2);
  WriteKeys("group", kTwo);
  WriteWeight("3");
  EXPECT_EQ(TenantOf("sk-one"), "team") << "not before it is asked to";
  files_.Reload();
  EXPECT_EQ(TenantOf("sk-one"), "nobody");
  EXPECT_EQ(TenantOf("sk-two"), "group");
  EXPECT_EQ(Policy().weight, 3);
  for (const char* file : {"api-keys", "tenants"}) {
    EXPECT_EQ(Count("weft_reloads_total", file), 1);
    EXPECT_EQ(Count("weft_reload_failures_total", file), 0);
  }
}

TEST_F(ReloadableFilesTest, AnInvalidFileKeepsAllOfWhatWas) {
  ASSERT_TRUE(files_.Load().ok());
  WriteKeys("group", "sk-two");
  dir_.Write("tenants", R"({"tenants":{"team":{"max_queued":9,"weight":0}}})");
  files_.Reload();
  EXPECT_EQ(TenantOf("sk-one"), "team");
  EXPECT_EQ(TenantOf("sk-two"), "nobody");
  EXPECT_EQ(Policy().weight, 2);
  EXPECT_EQ(Policy().max_queued, 5) << "not half of it either";
  for (const char* file : {"api-keys", "tenants"}) {
    EXPECT_EQ(Count("weft_reloads_total", file), 0);
    EXPECT_EQ(Count("weft_reload_failures_total", file), 1);
  }
}

TEST_F(ReloadableFilesTest, OneFileIsNoHostageOfTheOther) {
  ASSERT_TRUE(files_.Load().ok());
  dir_.Write("keys", "nonsense");
  WriteWeight("3");
  files_.Reload();
  EXPECT_EQ(TenantOf("sk-one"), "team");
  EXPECT_EQ(Policy().weight, 3);
}

TEST_F(ReloadableFilesTest, AnInvalidFileRefusesToStart) {
  WriteWeight("0");
  const absl::Status tenants = files_.Load();
  EXPECT_TRUE(absl::StrContains(tenants.message(), "tenants.team.weight")) << tenants;
  WriteKeys("team", "sk-one");
  const absl::Status keys = files_.Load();
  EXPECT_TRUE(absl::StrContains(keys.message(), "api-keys: key file, line 1")) << keys;
}

}  // namespace
}  // namespace weft
