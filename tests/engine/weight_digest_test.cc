#include "engine/weight_digest.h"

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "engine/checkpoint.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

struct LoadOptions {
  ParallelSizes sizes;
  std::optional<DType> dtype;
  int num_threads = 2;
};

// Of each rank.
std::vector<std::vector<TensorDigest>> Digests(const std::string& dir, const LoadOptions& options) {
  const ModelConfig config = *LoadModelConfig(dir);
  const auto backend = *OpenDevice({.num_threads = options.num_threads});
  WeightOptions weights;
  weights.dtype = options.dtype;
  std::vector<ModelWeights> ranks = *LoadRankWeights(dir, config, *MakePlans(config, options.sizes), weights, *backend);
  std::vector<std::vector<TensorDigest>> digests;
  for (ModelWeights& rank : ranks) digests.push_back(std::move(rank.digests));
  return digests;
}

TEST(WeightDigestTest, OneModelHasOneHoweverItIsLoaded) {
  for (const char* model : {"llama3", "qwen2", "qwen3", "qwen2_moe", "mixtral"}) {
    SCOPED_TRACE(model);
    const auto a = Digests(FixtureModel(model), {.num_threads = 1});
    const auto b = Digests(FixtureModel(model), {.num_threads = 3});
    EXPECT_TRUE(CompareDigests(a[0], b[0]).ok()) << CompareDigests(a[0], b[0]);
    EXPECT_EQ(CombinedDigest(a[0]), CombinedDigest(b[0]));
    EXPECT_EQ(CombinedDigest(a[0]).size(), 32u);
    std::set<std::string> names;
    for (const TensorDigest& tensor : a[0]) names.insert(tensor.name);
    EXPECT_EQ(names.size(), a[0].size()) << "each has a name of its own";
  }
}

TEST(WeightDigestTest, NamesWhatIsStackedInALinear) {
  const auto digests = Digests(FixtureModel("llama3"), {});
  std::set<std::string> names;
  for (const TensorDigest& tensor : digests[0]) names.insert(tensor.name);
  for (const char* name : {"model.embed_tokens.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
                           "model.layers.1.self_attn.q_proj.weight+k_proj.weight+v_proj.weight",
                           "model.layers.1.mlp.gate_proj.weight+up_proj.weight"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
}

TEST(WeightDigestTest, RanksOfAStageDifferAndThoseOfAReplicaDoNot) {
  for (const DType dtype : {DType::kBF16, DType::kI8}) {
    const LoadOptions options{.sizes = {.tensor = 2, .pipeline = 2}, .dtype = dtype};
    const auto a = Digests(FixtureModel("llama3"), options);
    const auto b = Digests(FixtureModel("llama3"), options);
    ASSERT_EQ(a.size(), 4u);
    for (size_t rank = 0; rank < a.size(); ++rank) EXPECT_TRUE(CompareDigests(a[rank], b[rank]).ok());
    EXPECT_FALSE(CompareDigests(a[0], a[1]).ok()) << "other columns";
    EXPECT_FALSE(CompareDigests(a[0], a[2]).ok()) << "other layers";
  }
}

TEST(WeightDigestTest, TellsDTypesApart) {
  const auto stored = Digests(FixtureModel("llama3"), {});
  for (const DType dtype : {DType::kF16, DType::kI8}) {
    EXPECT_FALSE(CompareDigests(stored[0], Digests(FixtureModel("llama3"), {.dtype = dtype})[0]).ok());
  }
}

TEST(WeightDigestTest, OneFlippedWeightNamesItsTensor) {
  const TempDir dir;
  std::filesystem::copy(FixtureModel("qwen2"), dir.path());
  const auto before = Digests(dir.path(), {});
  std::string bytes = ReadAll(dir.File("model.safetensors"));
  const Checkpoint checkpoint = *Checkpoint::Open(dir.path());
  for (const auto& [tensor, named] : std::vector<std::pair<std::string, std::string>>{
           {"model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.gate_proj.weight+up_proj.weight"},
           {"model.layers.0.self_attn.k_proj.bias", "model.layers.0.self_attn.q_proj.weight+k_proj.weight"},
           {"model.norm.weight", "model.norm.weight"}}) {
    std::string spoiled = bytes;
    spoiled[checkpoint.BeginOf(*checkpoint.Find(tensor)) + 2] ^= 1;  // the least bit of an element
    dir.Write("model.safetensors", spoiled);
    const absl::Status status = CompareDigests(before[0], Digests(dir.path(), {})[0]);
    EXPECT_TRUE(absl::IsDataLoss(status)) << tensor << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("integrity_error"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(named));
  }
}

TEST(WeightDigestTest, NamesWhatOnlyOneHas) {
  const std::vector<TensorDigest> one = {{"a", {1}}};
  const std::vector<TensorDigest> two = {{"a", {1}}, {"b", {2}}};
  const std::vector<TensorDigest> other = {{"c", {1}}};
  EXPECT_THAT(std::string(CompareDigests(one, two).message()), HasSubstr("has b"));
  EXPECT_THAT(std::string(CompareDigests(two, one).message()), HasSubstr("has b"));
  EXPECT_THAT(std::string(CompareDigests(one, other).message()), HasSubstr("has a, the other has c"));
  EXPECT_TRUE(CompareDigests({}, {}).ok());
  EXPECT_NE(CombinedDigest(one), CombinedDigest(other)) << "names count";
}

}  // namespace
}  // namespace weft
