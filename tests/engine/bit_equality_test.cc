// Nothing that happens to other requests changes a request's tokens or log-probabilities by a bit: neighbours, cuts of
// its prompt, prefixes taken up from the cache, preemption for blocks, for a class, or for fairness.
#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/open_engine.h"
#include "tests/engine/temp_model.h"
#include "tests/fakes/hand_driven_replica.h"

namespace weft {
namespace {

constexpr int kNumRequests = 10;
constexpr int kMaxModelLen = 160;

struct Conditions {
  const char* name = "";
  int max_num_seqs = 8;
  int max_num_batched_tokens = 256;
  int num_sequences_of_cache = 16;  // of kMaxModelLen tokens each
  bool alone = false;               // each has the engine to itself
  bool shares_prefixes = false;     // and every request comes twice
  bool classes = false;             // of three priorities; higher ones come later
  PreemptionReason preempts = PreemptionReason::kBlocks;
  bool must_preempt = false;
};

void PrintTo(const Conditions& conditions, std::ostream* out) { *out << conditions.name; }

// Prompts of different lengths, some of which begin alike; greedy and sampled, with and without penalties.
std::unique_ptr<Request> MakeRequest(int i) {
  auto request = std::make_unique<Request>();
  request->tenant = "nobody";
  for (int t = 0; t < 20 + 9 * i; ++t) {
    const int family = t < 40 ? i % 3 : i;
    request->prompt.push_back((family * 7919 + t * 104729 + 11) % 200);
  }
  request->sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
  request->sampling.top_p = 0.9f;
  request->sampling.repetition_penalty = i % 4 == 1 ? 1.2f : 1.0f;
  request->sampling.seed = static_cast<uint64_t>(i);
  request->sampling.num_logprobs = 0;
  request->stop.max_tokens = 55;
  return request;
}

struct Output {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;

  bool operator==(const Output&) const = default;
};

void PrintTo(const Output& output, std::ostream* out) { *out << testing::PrintToString(output.tokens); }

class BitEqualityTest : public testing::TestWithParam<Conditions> {
 protected:
  static std::unique_ptr<Engine> OpenEngine(const Conditions& conditions) {
    const std::string dir = FixtureModel("llama3");
    const ModelConfig config = *LoadModelConfig(dir);
    EngineSetup options{.model_dir = dir,
                        .device = {.num_threads = 2},
                        .max_model_len = kMaxModelLen,
                        .max_num_seqs = conditions.max_num_seqs,
                        .max_num_batched_tokens = conditions.max_num_batched_tokens};
    options.kv_cache_bytes = *KvCacheBytes(config, options, conditions.num_sequences_of_cache * kMaxModelLen);
    auto engine = OpenOneEngine(config, options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }

  // Of each request, all its runs: they must be alike.
  static std::vector<std::vector<Output>> Run(const Conditions& conditions) {
    HandDrivenReplica replica(OpenEngine(conditions));
    std::vector<std::vector<std::shared_ptr<RecordingSink>>> sinks(kNumRequests);
    for (int run = 0; run < (conditions.shares_prefixes ? 2 : 1); ++run) {
      for (int i = 0; i < kNumRequests; ++i) {
        std::unique_ptr<Request> request = MakeRequest(i);
        if (conditions.shares_prefixes) request->tenant = "somebody";
        if (conditions.preempts == PreemptionReason::kFairness) request->tenant = "nobody" + std::to_string(i / 5);
        if (conditions.classes) request->priority = static_cast<Priority>(i * kNumPriorities / kNumRequests);
        sinks[static_cast<size_t>(i)].push_back(replica.Push(std::move(request)));
        if (conditions.alone) replica.RunUntilIdle();
        for (int step = 0; step < 4; ++step) replica.Step();
      }
      replica.RunUntilIdle();
    }
    const Stats stats = replica.stats();
    const int64_t num_preemptions = stats.num_preemptions[static_cast<size_t>(conditions.preempts)];
    EXPECT_GE(num_preemptions, conditions.must_preempt ? 1 : 0);
    EXPECT_GE(stats.num_cached_tokens, conditions.shares_prefixes ? 1 : 0);
    std::vector<std::vector<Output>> outputs(kNumRequests);
    for (size_t i = 0; i < kNumRequests; ++i) {
      for (const auto& sink : sinks[i]) outputs[i].push_back({sink->tokens, sink->logprobs});
    }
    return outputs;
  }
};

TEST_P(BitEqualityTest, OutputsAreThoseOfARequestAlone) {
  static const auto* const kAlone = new auto(Run({.name = "Alone", .alone = true}));
  const auto outputs = Run(GetParam());
  for (size_t i = 0; i < kNumRequests; ++i) {
    ASSERT_EQ((*kAlone)[i][0].tokens.size(), 55u);
    for (const Output& output : outputs[i]) EXPECT_EQ(output, (*kAlone)[i][0]) << "request " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Conditions, BitEqualityTest,
    testing::Values(
        Conditions{.name = "Neighbours"}, Conditions{.name = "Chunks", .max_num_batched_tokens = 11},
        Conditions{.name = "ChunksAlone", .max_num_batched_tokens = 9, .alone = true},
        Conditions{.name = "Hits", .shares_prefixes = true},
        Conditions{.name = "HitsInChunks", .max_num_batched_tokens = 13, .shares_prefixes = true},
        Conditions{.name = "FewBlocks", .num_sequences_of_cache = 2, .must_preempt = true},
        Conditions{
            .name = "FewBlocksAndHits", .num_sequences_of_cache = 2, .shares_prefixes = true, .must_preempt = true},
        Conditions{.name = "Classes",
                   .max_num_seqs = 3,
                   .classes = true,
                   .preempts = PreemptionReason::kPriority,
                   .must_preempt = true},
        Conditions{
            .name = "Tenants", .max_num_seqs = 3, .preempts = PreemptionReason::kFairness, .must_preempt = true}),
    [](const auto& conditions) { return conditions.param.name; });

}  // namespace
}  // namespace weft
