// A model directory as the server loads it: held to a manifest, refused where the machine can't hold it, with progress.
#include "server/served_model.h"

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "server/exit_status.h"
#include "server/manifest_file.h"
#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

const char* const kFiles[] = {"config.json",           "generation_config.json", "tokenizer.json",
                              "tokenizer_config.json", "chat_template.jinja",    "model.safetensors"};

class ServedModelTest : public testing::Test {
 protected:
  ServedModelTest() {
    std::filesystem::copy(WEFT_SOURCE_DIR "/deploy/demo_model", dir_.path());
    config_.model.dir = dir_.path();
    config_.engine.kv_cache_bytes = 64 << 20;
    config_.model.max_model_len = 64;
  }
  absl::Status Load(const LoadingProgress& progress = {}) const { return LoadServedModel(config_, progress).status(); }
  void WriteManifestTo(const std::string& name) {
    manifests_.Write(name, *WriteManifest(dir_.path()));
    config_.model.manifest_file = manifests_.File(name);
  }

  const TempDir dir_, manifests_;
  Config config_;
};

TEST_F(ServedModelTest, LoadsWhatItsManifestSays) {
  const std::string plain = LoadServedModel(config_, {})->info.fingerprint;
  WriteManifestTo("m.json");
  const absl::StatusOr<ServedModel> model = LoadServedModel(config_, {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_NE(model->info.fingerprint, plain) << "weights count too";
}

TEST_F(ServedModelTest, M20RefusesEveryFileThatDiffersIsUnlistedOrAbsent) {
  WriteManifestTo("m.json");
  const std::string manifest = *WriteManifest(dir_.path());
  for (const std::string file : kFiles) {
    SCOPED_TRACE(file);
    const auto refused = [&](const char* what) {
      const absl::Status status = Load();
      EXPECT_TRUE(absl::StrContains(status.message(), ": integrity_error: ")) << what << ": " << status;
      EXPECT_TRUE(absl::StrContains(status.message(), "/" + file)) << what << ": " << status;
    };
    const std::string hidden = dir_.File(file + ".away");
    std::filesystem::rename(dir_.File(file), hidden);
    refused("absent");
    std::filesystem::copy(hidden, dir_.File(file));
    std::filesystem::resize_file(dir_.File(file), std::filesystem::file_size(hidden) - 1);
    refused("shorter");
    std::filesystem::remove(dir_.File(file));
    std::filesystem::rename(hidden, dir_.File(file));
    manifests_.Write("m.json", absl::StrReplaceAll(manifest, {{absl::StrCat("\"", file, "\""), "\"other.json\""}}));
    refused("unlisted");
    manifests_.Write("m.json", manifest);
  }
  EXPECT_TRUE(Load().ok());
}

TEST_F(ServedModelTest, RefusesABadManifestBeforeItReadsTheModel) {
  config_.model.manifest_file = manifests_.File("absent.json");
  EXPECT_TRUE(absl::StrContains(Load().message(), "absent.json")) << Load();
  manifests_.Write("absent.json", "{}");
  std::filesystem::remove(dir_.File("config.json"));
  EXPECT_TRUE(absl::StrContains(Load().message(), "absent.json: invalid_manifest: ")) << Load();
}

TEST_F(ServedModelTest, RefusesMoreMemoryThanThereIsBeforeItReadsWeights) {
  std::filesystem::remove(dir_.File("model.safetensors"));
  config_.engine.kv_cache_bytes = int64_t{1} << 55;
  const absl::Status status = Load();
  EXPECT_TRUE(absl::StartsWith(status.message(), "memory: ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "33554432.00 GiB of KV cache")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "kv-cache-memory")) << status;
}

TEST_F(ServedModelTest, TellsHowFarItIs) {
  WriteManifestTo("m.json");
  double last = 0;
  std::vector<std::string> phases, parts;
  const auto rise = [&](double done) {
    EXPECT_GE(done, last);
    last = done;
  };
  int num_shares = 0;
  ASSERT_TRUE(Load({.on_phase =
                        [&](absl::string_view phase, absl::Duration, double done) {
                          phases.emplace_back(phase);
                          rise(done);
                        },
                    .on_part = [&](absl::string_view part, absl::Duration) { parts.emplace_back(part); },
                    .on_share =
                        [&](absl::string_view phase, double share, double done) {
                          EXPECT_EQ(phase, "weights");
                          EXPECT_LE(share, 1);
                          ++num_shares;
                          rise(done);
                        }})
                  .ok());
  EXPECT_EQ(phases, (std::vector<std::string>{"config", "tokenizer", "chat_template", "weights", "warm_up"}));
  EXPECT_EQ(parts, (std::vector<std::string>{"weights_verify", "weights_read", "weights_convert", "weights_digest"}));
  EXPECT_GT(num_shares, 3);
  EXPECT_EQ(last, 1);
}

TEST(LoadingReporterTest, ShowsHealthAndMetrics) {
  HealthBoard health;
  Metrics metrics;
  LoadingReporter reporter(health, metrics);
  const LoadingProgress progress = reporter.Progress();
  progress.on_share("weights", 0, 0.1);
  EXPECT_EQ(health.Get().detail, "loading weights, 0 %");
  progress.on_share("weights", 0.421, 0.45);
  EXPECT_EQ(health.Get().detail, "loading weights, 42 %");
  EXPECT_EQ(health.Get().progress, 0.45);
  EXPECT_TRUE(absl::StrContains(metrics.Render(), "weft_loading_progress_ratio 0.45\n")) << metrics.Render();
  progress.on_part("weights_read", absl::Seconds(1));
  progress.on_phase("weights", absl::Seconds(3), 0.9);
  EXPECT_EQ(health.Get().detail, "loaded weights");
  const std::string text = metrics.Render();
  EXPECT_TRUE(absl::StrContains(text, "weft_startup_seconds{phase=\"weights_read\"} 1\n")) << text;
  EXPECT_TRUE(absl::StrContains(text, "weft_startup_seconds{phase=\"weights\"} 3\n")) << text;
}

TEST(ManifestCommandTest, ListsWhatWeftReadsAndNothingElse) {
  const TempDir dir;
  for (const char* name : {"config.json", "model-00001-of-00002.safetensors", "manifest.json", "README.md",
                           "pytorch_model.bin", ".hidden.safetensors", "modeling.py"}) {
    dir.Write(name, "abc");
  }
  std::ostringstream out, err;
  EXPECT_EQ(ManifestMain({dir.path()}, out, err), kExitOk) << err.str();
  const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  EXPECT_EQ(out.str(), absl::StrCat("{\"version\": 1, \"files\": [\n  {\"path\": \"config.json\", \"size\": 3, "
                                    "\"sha256\": \"",
                                    abc,
                                    "\"},\n  {\"path\": \"model-00001-of-00002.safetensors\", \"size\": 3, "
                                    "\"sha256\": \"",
                                    abc, "\"}\n]}\n"));
  EXPECT_TRUE(ModelManifest::Parse("M", out.str()).ok());
}

TEST(ManifestCommandTest, SaysWhatIsWrong) {
  const TempDir empty;
  const std::string absent = empty.File("absent");
  for (const auto& [args, status] : std::vector<std::pair<std::vector<std::string>, int>>{{{}, kExitUsage},
                                                                                          {{"a", "b"}, kExitUsage},
                                                                                          {{"--help"}, kExitUsage},
                                                                                          {{empty.path()}, kExitConfig},
                                                                                          {{absent}, kExitConfig}}) {
    std::ostringstream out, err;
    EXPECT_EQ(ManifestMain(args, out, err), status);
    EXPECT_EQ(out.str(), "");
    EXPECT_NE(err.str(), "");
  }
}

}  // namespace
}  // namespace weft
