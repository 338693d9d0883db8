#include <fstream>
#include <iterator>
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config_flags.h"
#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

using Words = std::vector<std::string>;

std::string WriteFile(const std::string& name, const std::string& text) {
  static const TempDir dir;
  dir.Write(name, text);
  return dir.File(name);
}

TEST(ConfigTest, ReadsEveryKindOfFlag) {
  const auto config = ParseConfig({"--model",
                                   "/m",
                                   "--served-model-name",
                                   "a",
                                   "b",
                                   "--weight-dtype=int8",
                                   "--load-format",
                                   "dummy",
                                   "--max-num-seqs=8",
                                   "--kv-cache-memory",
                                   "2GiB",
                                   "--max-prefill-share",
                                   "0.25",
                                   "--max-itl=0s",
                                   "--trust-gateway",
                                   "--tenants",
                                   "/t",
                                   "--drain-timeout",
                                   "1500ms",
                                   "--port",
                                   "0",
                                   "--insecure",
                                   "--log-level",
                                   "warn"},
                                  {});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.dir, "/m");
  EXPECT_EQ(config->model.served_names, (Words{"a", "b"}));
  EXPECT_EQ(config->model.weight_dtype, DType::kI8);
  EXPECT_EQ(config->model.load_format, LoadFormat::kDummy);
  EXPECT_EQ(config->engine.max_num_seqs, 8);
  EXPECT_EQ(config->engine.kv_cache_bytes, int64_t{2} << 30);
  EXPECT_EQ(config->drain_timeout, absl::Milliseconds(1500));
  EXPECT_EQ(config->engine.max_prefill_share, 0.25);
  EXPECT_EQ(config->engine.max_itl, absl::ZeroDuration());
  EXPECT_TRUE(config->auth.trust_gateway);
  EXPECT_EQ(config->queue.tenants_file, "/t");
  EXPECT_EQ(config->http.port, 0);
  EXPECT_TRUE(config->auth.insecure);
  EXPECT_EQ(config->log.level, "warn");
}

TEST(ConfigTest, TheReadmeHasEverySetting) {
  std::ifstream file(WEFT_SOURCE_DIR "/README.md");
  const std::string readme(std::istreambuf_iterator<char>(file), {});
  for (const ConfigSetting& setting : ConfigSettings()) {
    EXPECT_TRUE(absl::StrContains(readme, absl::StrCat("| `--", setting.name))) << setting.name;
    EXPECT_TRUE(absl::StrContains(readme, setting.help)) << setting.name << " is described otherwise";
  }
}

TEST(ConfigTest, TheModelMayComeWithoutItsFlag) {
  for (const Words& args : {Words{"/m", "--port", "0"}, Words{"--port", "0", "/m"}}) {
    const auto config = ParseConfig(args, {});
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->model.dir, "/m");
  }
}

TEST(ConfigTest, FlagsWinOverVariablesOverTheFile) {
  const std::string file = WriteFile("precedence.toml",
                                     "# comment\nmodel = \"/file\"\nblock-size = 32\nmax-num-seqs = 3\nthreads = 5\n"
                                     "served-model-name = [\"x\", \"y\"]\ninsecure = true\n");
  const auto config = ParseConfig({"--config", file, "--max-num-seqs", "1"},
                                  {"WEFT_MAX_NUM_SEQS=2", "WEFT_THREADS=4", "HOME=/root", "WEFT_LOG_FORMAT=json"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.dir, "/file");
  EXPECT_EQ(config->engine.block_size, 32);
  EXPECT_EQ(config->engine.threads, 4);
  EXPECT_EQ(config->engine.max_num_seqs, 1);
  EXPECT_EQ(config->model.served_names, (Words{"x", "y"}));
  EXPECT_TRUE(config->auth.insecure);
  EXPECT_EQ(config->log.format, "json");
}

TEST(ConfigTest, TheFileMayBeNamedByAVariable) {
  const std::string file = WriteFile("named.ini", "; comment\nmodel=/ini\n");
  const auto config = ParseConfig({}, {"WEFT_CONFIG=" + file});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model.dir, "/ini");
}

// Each is refused in one line that has all the words.
struct Refusal {
  Words args;
  Words environment;
  std::string file;  // the text of a file, if not empty
  Words words;
};

void PrintTo(const Refusal& refusal, std::ostream* out) { *out << testing::PrintToString(refusal.words); }

class ConfigRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefusalTest, SaysWhatAndWhereInOneLine) {
  Words args = GetParam().args;
  if (!GetParam().file.empty()) {
    args.push_back("--config");
    args.push_back(WriteFile("refused.toml", GetParam().file));
  }
  const auto config = ParseConfig(args, GetParam().environment);
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(config.status().message());
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  for (const std::string& word : GetParam().words) EXPECT_THAT(message, testing::HasSubstr(word));
}

INSTANTIATE_TEST_SUITE_P(
    Table, ConfigRefusalTest,
    testing::Values(
        // Unknown names, and the nearest that exists.
        Refusal{{"/m", "--max-num-sqs", "4"}, {}, "", {"--max-num-sqs", "--max-num-seqs"}},
        Refusal{{"/m", "--prot=80"}, {}, "", {"--prot", "--port"}},
        Refusal{{"/m"}, {"WEFT_MAX_NUM_SEQ=4"}, "", {"WEFT_MAX_NUM_SEQ'", "WEFT_MAX_NUM_SEQS"}},
        Refusal{{"/m"}, {}, "treads = 4\n", {"refused.toml", "treads", "threads"}},
        Refusal{{"/m"}, {}, "[engine]\nthreads = 4\n", {"refused.toml", "engine.threads"}},
        // Twice, too much, too little.
        Refusal{{"/m", "--port", "1", "--port", "2"}, {}, "", {"port", "twice"}},
        Refusal{{"/m", "--model", "/n"}, {}, "", {"model", "twice"}}, Refusal{{"/m", "/n"}, {}, "", {"/n"}},
        Refusal{{"/m"}, {}, "threads = 4\nblock-size = 8\nthreads = 4\n", {"threads", "twice"}},
        Refusal{{"/m"}, {}, "threads = 4\nthreads = 4\n", {"threads", "once"}},
        Refusal{{"/m"}, {}, "threads = 4 5\n", {"threads"}}, Refusal{{"/m", "--port"}, {}, "", {"port"}},
        Refusal{{}, {}, "", {"model"}}, Refusal{{"--config", "/nowhere/at.all"}, {}, "", {"config", "/nowhere/at.all"}},
        // Numbers and sizes.
        Refusal{{"/m", "--port", "70000"}, {}, "", {"--port", "70000", "65535"}},
        Refusal{{"/m", "--port", "-1"}, {}, "", {"--port"}},
        Refusal{{"/m", "--port", "80x"}, {}, "", {"--port", "80x"}},
        Refusal{{"/m", "--max-num-seqs", "0"}, {}, "", {"--max-num-seqs"}},
        Refusal{{"/m", "--max-num-seqs", "99999999999999999999"}, {}, "", {"--max-num-seqs"}},
        Refusal{{"/m", "--kv-cache-memory", "8GiBx"}, {}, "", {"--kv-cache-memory", "8GiBx"}},
        Refusal{{"/m", "--kv-cache-memory", "8"}, {}, "", {"--kv-cache-memory", "unit"}},
        Refusal{{"/m", "--kv-cache-memory", "0GiB"}, {}, "", {"--kv-cache-memory"}},
        Refusal{{"/m", "--kv-cache-memory", "-1GiB"}, {}, "", {"--kv-cache-memory"}},
        Refusal{{"/m", "--kv-cache-memory", "9999999999TiB"}, {}, "", {"--kv-cache-memory"}},
        Refusal{{"/m"}, {"WEFT_KV_CACHE_MEMORY=many"}, "", {"WEFT_KV_CACHE_MEMORY", "many"}},
        Refusal{{"/m"}, {}, "kv-cache-memory = 5\n", {"refused.toml", "kv-cache-memory"}},
        Refusal{{"/m", "--drain-timeout", "90"}, {}, "", {"--drain-timeout", "unit"}},
        Refusal{{"/m", "--drain-timeout", "-5s"}, {}, "", {"--drain-timeout"}},
        Refusal{{"/m", "--drain-timeout", "inf"}, {}, "", {"--drain-timeout"}},
        Refusal{{"/m", "--weight-dtype", "int4"}, {}, "", {"--weight-dtype", "int4", "int8"}},
        Refusal{{"/m", "--replicas", "0"}, {}, "", {"--replicas", "1 to 16"}},
        Refusal{{"/m", "--replicas", "17"}, {}, "", {"--replicas", "1 to 16"}},
        Refusal{{"/m", "--tensor-parallel-size", "0"}, {}, "", {"--tensor-parallel-size", "1 to 64"}},
        Refusal{{"/m", "--pipeline-layers", "10,x"}, {}, "", {"pipeline-layers", "'x'"}},
        Refusal{{"/m", "--pipeline-layers", "10,,12"}, {}, "", {"pipeline-layers", "''"}},
        Refusal{{"/m", "--max-prefill-share", "0"}, {}, "", {"--max-prefill-share", "0.05 to 1"}},
        Refusal{{"/m", "--max-prefill-share", "1.1"}, {}, "", {"--max-prefill-share"}},
        Refusal{{"/m", "--max-prefill-share", "nan"}, {}, "", {"--max-prefill-share"}},
        Refusal{{"/m", "--max-itl", "200"}, {}, "", {"--max-itl", "unit"}},
        Refusal{{"/m", "--max-ttft", "-1s"}, {}, "", {"--max-ttft"}},
        Refusal{{"/m", "--affinity-wait", "inf"}, {}, "", {"--affinity-wait"}},
        Refusal{{"/m", "--log-level", "loud"}, {}, "", {"--log-level", "debug"}},
        // Settings that contradict each other.
        Refusal{{"/m", "--max-num-seqs", "64", "--max-num-batched-tokens", "32"},
                {},
                "",
                {"max-num-batched-tokens", "32", "64"}},
        Refusal{{"/m", "--host", "0.0.0.0"}, {}, "", {"host", "api-keys", "--insecure"}},
        Refusal{{"/m", "--tls-cert", "c.pem"}, {}, "", {"tls-key"}},
        Refusal{{"/m", "--tls-key", "k.pem"}, {}, "", {"tls-cert"}},
        Refusal{{"/m", "--port", "7000", "--grpc-port", "7000"}, {}, "", {"grpc-port", "7000"}},
        // What Kubernetes sets for a Service called "weft".
        Refusal{{"/m"}, {"WEFT_PORT=tcp://10.0.0.1:8000"}, "", {"WEFT_PORT", "enableServiceLinks"}},
        Refusal{{"/m"}, {"WEFT_SERVICE_HOST=10.0.0.1"}, "", {"WEFT_SERVICE_HOST", "enableServiceLinks"}},
        Refusal{{"/m"}, {"WEFT_PORT_8000_TCP_PORT=8000"}, "", {"enableServiceLinks"}}));

TEST(ConfigTest, OtherMachinesMayBeServedWithKeysOrOnPurpose) {
  EXPECT_TRUE(ParseConfig({"/m", "--host", "0.0.0.0", "--api-keys", "keys"}, {}).ok());
  EXPECT_TRUE(ParseConfig({"/m", "--host", "::", "--insecure"}, {}).ok());
  EXPECT_TRUE(ParseConfig({"/m", "--host", "::1"}, {}).ok());
}

TEST(ConfigTest, WhatIsWrittenIsWhatIsRead) {
  for (const ConfigSetting& setting : ConfigSettings()) {
    Config config;
    const SettingRef ref = setting.ref(config);
    const std::string written = WriteSetting(ref);
    if (written.empty()) continue;
    EXPECT_TRUE(ReadSetting(ref, {written}).ok()) << setting.name << " " << written;
    EXPECT_EQ(WriteSetting(ref), written) << setting.name;
  }
}

TEST(ConfigTest, HelpNamesEverySettingAndItsVariable) {
  const std::string help = ServeHelp();
  for (const ConfigSetting& setting : ConfigSettings()) {
    EXPECT_THAT(help, testing::HasSubstr(absl::StrCat("       --", setting.name)));
    EXPECT_THAT(help, testing::HasSubstr(EnvironmentName(setting.name)));
  }
}

}  // namespace
}  // namespace weft
