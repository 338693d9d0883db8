// Ranks that are processes compute what one rank in this process does.
#include "tests/engine/remote/remote_model.h"

namespace weft {
namespace {

class ProcessesTest : public testing::TestWithParam<Case> {};

TEST_P(ProcessesTest, OutputsAreThoseOfOneRank) {
  RemoteModel model(GetParam());
  auto engine = model.engines().Open(0);
  ASSERT_TRUE(engine.ok()) << engine.status();
  ExpectEqual(GetParam(), RunAll(*std::move(engine), GetParam().cancels), RunWhole(GetParam()));
}

std::vector<Case> Cases() {
  return {{"llama2", {}},
          {"llama3", {.tensor = 2}},
          {"mistral", {.tensor = 4}},
          {"qwen2", {.pipeline = 2}},
          {"llama3", {.pipeline = 3}},
          {"qwen3", {.tensor = 2, .pipeline = 2}},
          {"llama_bias", {.tensor = 2, .pipeline = 2}, 9},
          {"qwen2_window", {.tensor = 2, .pipeline = 2, .layers = {1, 2}}, 64, 2},
          {"mixtral", {.tensor = 2, .expert = 2}},
          {"qwen2_moe", {.tensor = 3, .expert = 3}},
          {"qwen3_moe", {.tensor = 2, .pipeline = 2, .expert = 2}},
          {"llama3", {.pipeline = 2}, 64, 16, DType::kI8}};
}

INSTANTIATE_TEST_SUITE_P(Plans, ProcessesTest, testing::ValuesIn(Cases()),
                         [](const auto& param) { return NameOf(param.param); });

INSTANTIATE_TEST_SUITE_P(Families, ProcessesTest, testing::ValuesIn(FamiliesByPlans()),
                         [](const auto& param) { return NameOf(param.param); });

TEST(RemoteEnginesTest, ReplicasAreOpenAtOnceAndOpenAgain) {
  const Case c{"llama3", {.tensor = 2}};
  RemoteModel model(c, 2);
  auto first = model.engines().Open(0), second = model.engines().Open(1);
  ASSERT_TRUE(first.ok() && second.ok()) << first.status() << second.status();
  const std::vector<Output> expected = RunWhole(c);
  ExpectEqual(c, RunAll(*std::move(first)), expected);
  ExpectEqual(c, RunAll(*std::move(second)), expected);
  ExpectEqual(c, RunAll(*model.engines().Open(0)), expected);
}

TEST(RemoteEnginesTest, ToldOfWhatRanksCount) {
  RemoteModel model({"qwen3_moe", {.tensor = 2, .pipeline = 2, .expert = 2}});
  const auto engine = *model.engines().Open(0);
  for (int64_t step = 0; step < 3; ++step) {
    engine->Submit(OneTokenStep(step));
    ASSERT_TRUE(engine->Collect().ok());
  }
  const auto all_tell = [&] {
    const EngineStats stats = engine->stats();
    return stats.ranks.size() == 4 && std::all_of(stats.ranks.begin(), stats.ranks.end(), [](const RankStats& rank) {
             return rank.num_steps == 3 && rank.weight_bytes > 0 && rank.kv_cache_bytes > 0 &&
                    rank.tensor_group[CommOp::kAllReduceSum].calls > 0;
           });
  };
  for (int i = 0; i < 1000 && !all_tell(); ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(all_tell());
  EXPECT_GT(engine->stats().with_work, absl::ZeroDuration());
}

}  // namespace
}  // namespace weft
