#include "server/tenants_file.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

TEST(TenantsFileTest, ReadsEveryField) {
  const auto policies = ParseTenants(R"({"tenants": {
      "search": {"weight": 4, "priority": "low", "max_priority": "high", "max_running": 8, "max_queued": 64,
                 "tokens_per_minute": 1000000000000},
      "b.2": {"weight": 0.001}}})");
  ASSERT_TRUE(policies.ok()) << policies.status();
  const TenantPolicy& search = policies->For("search");
  EXPECT_EQ(search.weight, 4);
  EXPECT_EQ(search.priority, Priority::kLow);
  EXPECT_EQ(search.max_priority, Priority::kHigh);
  EXPECT_EQ(search.max_running, 8);
  EXPECT_EQ(search.max_queued, 64);
  EXPECT_EQ(search.max_tokens_per_minute, 1'000'000'000'000);
  EXPECT_EQ(policies->For("b.2").weight, 0.001);
  for (const TenantPolicy& untold : {policies->For("b.2"), policies->For("unknown")}) {
    EXPECT_EQ(untold.priority, Priority::kNormal);
    EXPECT_EQ(untold.max_running, TenantPolicy::kUnlimited);
  }
}

TEST(TenantsFileTest, TheDefaultIsForTheUnlistedAndForWhatIsLeftOut) {
  const auto policies = ParseTenants(R"({"tenants": {"a": {"max_queued": 2}},
                                         "default": {"weight": 0.5, "max_queued": 7, "max_priority": "high"}})");
  ASSERT_TRUE(policies.ok()) << policies.status();
  EXPECT_EQ(policies->For("a").weight, 0.5);
  EXPECT_EQ(policies->For("a").max_queued, 2);
  EXPECT_EQ(policies->For("a").max_priority, Priority::kHigh);
  EXPECT_EQ(policies->For("b").max_queued, 7);
  EXPECT_TRUE(ParseTenants("{}").ok());
}

TEST(TenantsFileTest, RefusesInOneLineThatNamesTenantAndField) {
  const struct {
    std::string text;
    std::vector<std::string> words;
  } cases[] = {
      {R"({"tenants":{"a":{"weight":0}}})", {"tenants.a.weight", "0.001", "1000"}},
      {R"({"tenants":{"a":{"weight":-1}}})", {"tenants.a.weight"}},
      {R"({"tenants":{"a":{"weight":1000.1}}})", {"tenants.a.weight"}},
      {R"({"tenants":{"a":{"weight":"4"}}})", {"tenants.a.weight", "number"}},
      {R"({"tenants":{"a":{"weight":null}}})", {"tenants.a.weight"}},
      {R"({"tenants":{"a":{"weight":1e999}}})", {"out_of_range"}},
      {R"({"default":{"max_running":0}})", {"default.max_running", "1 to 1000000000"}},
      {R"({"default":{"max_running":-1}})", {"default.max_running"}},
      {R"({"default":{"max_running":1.0}})", {"default.max_running", "integer"}},
      {R"({"default":{"max_running":1000000001}})", {"default.max_running"}},
      {R"({"default":{"max_queued":0}})", {"default.max_queued"}},
      {R"({"default":{"max_queued":18446744073709551615}})", {"default.max_queued"}},
      {R"({"default":{"tokens_per_minute":1000000000001}})", {"default.tokens_per_minute", "1000000000000"}},
      {R"({"default":{"tokens_per_minute":true}})", {"default.tokens_per_minute"}},
      {R"({"default":{"priority":"High"}})", {"default.priority", "\"high\""}},
      {R"({"default":{"priority":0}})", {"default.priority"}},
      {R"({"default":{"max_priority":"urgent"}})", {"default.max_priority"}},
      {R"({"default":{"priority":"high"}})", {"default.priority", "max_priority", "normal"}},
      {R"({"default":{"max_priority":"low"}})", {"default.priority", "low"}},
      {R"({"default":{"max_priority":"high"},"tenants":{"a":{"priority":"normal","max_priority":"low"}}})",
       {"tenants.a.priority"}},
      {R"({"default":{"wieght":1}})", {"default.wieght", "unknown", "weight"}},
      {R"({"default":[]})", {"default", "object"}},
      {R"({"tenants":[]})", {"tenants", "object"}},
      {R"({"tenants":{"a":3}})", {"tenants.a", "object"}},
      {R"({"tenants":{"a b":{}}})", {"tenants.a b", "name"}},
      {R"({"tenants":{"":{}}})", {"tenants.", "name"}},
      {R"({"tenants":{"a\nb":{}}})", {R"(tenants.a\nb)"}},
      {absl::StrCat(R"({"tenants":{")", std::string(65, 'a'), R"(":{}}})"), {"tenants.aaa", "64"}},
      {R"({"tenant":{}})", {"tenant ", "unknown"}},
      {R"({"tenants":{"a":{},"a":{}}})", {"a ", "twice"}},
      {R"({"tenants":{"a":{"weight":1,"weight":2}}})", {"weight", "twice"}},
      {R"([])", {"expected_object"}},
      {R"({"tenants":{})", {"invalid_json"}},
      {"", {"invalid_json"}},
  };
  for (const auto& c : cases) {
    const absl::Status status = ParseTenants(c.text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.text;
    EXPECT_FALSE(absl::StrContains(status.message(), '\n')) << status.message();
    for (const std::string& word : c.words) EXPECT_TRUE(absl::StrContains(status.message(), word)) << status.message();
  }
}

TEST(TenantsFileTest, NamesTheFileToo) {
  const TempDir dir;
  dir.Write("tenants.json", R"({"tenants":{"a":{"weight":0}}})");
  const absl::Status status = LoadTenants(dir.File("tenants.json")).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "tenants.json: tenants.a.weight")) << status;
  for (const std::string& path : {dir.File("none.json"), dir.path()}) {
    EXPECT_TRUE(absl::StrContains(LoadTenants(path).status().message(), path));
  }
}

}  // namespace
}  // namespace weft
