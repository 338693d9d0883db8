#include "server/config_flags.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "kernels/status_macros.h"
#include "server/nearest_name.h"

namespace weft {
namespace {

constexpr absl::string_view kPrefix = "WEFT_";
constexpr absl::string_view kConfigName =
    "config";  // the file itself: a flag and a variable, but not a key of the file

constexpr std::pair<absl::string_view, LoadFormat> kLoadFormats[] = {{"safetensors", LoadFormat::kSafetensors},
                                                                     {"dummy", LoadFormat::kDummy}};
constexpr std::pair<absl::string_view, std::optional<DType>> kWeightDTypes[] = {
    {"auto", std::nullopt}, {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}, {"int8", DType::kI8}};
const std::pair<absl::string_view, std::string> kLogLevels[] = {
    {"trace", "trace"}, {"debug", "debug"}, {"info", "info"}, {"warn", "warn"}, {"error", "error"}};
const std::pair<absl::string_view, std::string> kLogFormats[] = {{"text", "text"}, {"json", "json"}};

constexpr std::pair<absl::string_view, PrefixCache> kPrefixCaches[] = {
    {"tenant", PrefixCache::kTenant}, {"all", PrefixCache::kAll}, {"off", PrefixCache::kOff}};

constexpr int kMaxPort = 65535;

const ConfigSetting kSettings[] = {
    {"Model", "model", "Model directory, as Hugging Face lays it out. May also be given without its name.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.model.dir, "DIR"};
     }},
    {"Model", "served-model-name", "Names that requests may use; the first one is canonical. Default: the directory's.",
     [](Config& c) -> SettingRef {
       return ListSetting{&c.model.served_names, "NAME"};
     }},
    {"Model", "weight-dtype", "How weights are stored. auto: as in the files. int8: one scale an output channel.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::optional<DType>>{&c.model.weight_dtype, kWeightDTypes};
     }},
    {"Model", "load-format", "Where weights come from. dummy: random ones for this config.json, to measure its shape.",
     [](Config& c) -> SettingRef {
       return WordSetting<LoadFormat>{&c.model.load_format, kLoadFormats};
     }},
    {"Model", "manifest",
     "JSON file of the sizes and SHA-256 digests of the model's files, as weft manifest DIR writes it: what is not in "
     "it, or differs, is refused.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.model.manifest_file, "FILE"};
     }},
    {"Model", "max-model-len", "Tokens that a prompt and its output may have together. auto: the model's own limit.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.model.max_model_len, .auto_is_zero = true}; }},

    {"Engine", "replicas",
     "Copies of the model that serve side by side. They share its weights, the threads and the memory for the KV "
     "cache.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.replicas, .most = 16}; }},
    {"Engine", "tensor-parallel-size", "Ranks that share each layer of a replica; divides the attention heads.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.tensor_parallel_size, .most = 64}; }},
    {"Engine", "pipeline-parallel-size", "Stages of a replica, each with some of the layers.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.pipeline_parallel_size, .most = 64}; }},
    {"Engine", "expert-parallel-size",
     "Parts into which experts are spread over a stage's ranks; divides tensor-parallel-size. 1: each rank has a part "
     "of "
     "every expert.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.expert_parallel_size, .most = 64}; }},
    {"Engine", "pipeline-layers", "Layers of each stage, as 10,12,10. Default: stages cost about the same.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.engine.pipeline_layers, "N,N..."};
     }},
    {"Engine", "max-num-seqs", "Sequences that a replica runs at once.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.max_num_seqs, .most = 4096}; }},
    {"Engine", "max-num-batched-tokens", "Tokens that one step computes at most; long prompts are cut into chunks.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.max_num_batched_tokens, .most = 1 << 20}; }},
    {"Engine", "block-size", "Tokens in one block of the KV cache.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.block_size, .most = 1024}; }},
    {"Engine", "kv-cache-memory",
     "Memory for the KV caches of all replicas. auto: what max-num-seqs sequences of full length need on each, at most "
     "a "
     "quarter of the memory.",
     [](Config& c) -> SettingRef { return BytesSetting{.value = &c.engine.kv_cache_bytes, .auto_is_zero = true}; }},
    {"Engine", "prefix-cache",
     "Who shares what was computed for prompts that begin alike: requests of one tenant, all, or none. "
     "all: response times tell tenants what others ask.",
     [](Config& c) -> SettingRef {
       return WordSetting<PrefixCache>{&c.engine.prefix_cache, kPrefixCaches};
     }},
    {"Engine", "threads", "Threads that compute, for all replicas together. auto: one a core.",
     [](Config& c) -> SettingRef {
       return NumberSetting{.value = &c.engine.threads, .most = 1024, .auto_is_zero = true};
     }},
    {"Engine", "max-prefill-share", "Part of max-num-batched-tokens that prompts may take while others decode.",
     [](Config& c) -> SettingRef { return FractionSetting{.value = &c.engine.max_prefill_share, .least = 0.05}; }},
    {"Engine", "max-itl",
     "Prompts are cut so that a step, and so the time between two tokens of others, takes no longer. 0s: they are not.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.engine.max_itl, .may_be_zero = true}; }},

    {"Engine", "restart-limit", "A replica whose engine died so often within ten minutes is not started again.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.restarts.limit, .most = 1 << 20}; }},
    {"Engine", "restart-backoff",
     "Wait before a replica's second restart within ten minutes; then twice that, and so on, up to 30s.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.engine.restarts.backoff, .may_be_zero = true}; }},

    {"Queue", "max-queued-requests",
     "Sequences that may wait; one more is refused with 429. auto: 4 x max-num-seqs x replicas.",
     [](Config& c) -> SettingRef {
       return NumberSetting{.value = &c.queue.max_queued_requests, .most = 1 << 20, .auto_is_zero = true};
     }},
    {"Queue", "tenants", "JSON file of the tenants' weights, priorities and caps. SIGHUP reads it anew.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.queue.tenants_file, "FILE"};
     }},
    {"Queue", "max-ttft",
     "A request whose first token would probably come later than this is refused with 429. 0s: none is.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.queue.max_ttft, .may_be_zero = true}; }},
    {"Queue", "affinity-wait", "How long a request waits at most for the replica that has its beginning in its cache.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.queue.affinity_wait, .may_be_zero = true}; }},

    {"Network", "host", "Address to listen on, for HTTP and gRPC.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.http.host, "ADDRESS"};
     }},
    {"Network", "port", "HTTP port. 0: a free one.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.http.port, .least = 0, .most = kMaxPort}; }},
    {"Network", "grpc-port", "gRPC port. 0: a free one.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.grpc.port, .least = 0, .most = kMaxPort}; }},
    {"Network", "http-threads", "Threads that parse requests and write answers.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.http.threads, .most = 256}; }},
    {"Network", "max-connections", "HTTP connections that may be open.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.http.max_connections, .most = 1 << 20}; }},
    {"Network", "max-body-size", "Largest body of an HTTP request.",
     [](Config& c) -> SettingRef { return BytesSetting{.value = &c.http.max_body_bytes}; }},
    {"Network", "max-message-size", "Largest message of a gRPC call.",
     [](Config& c) -> SettingRef { return BytesSetting{.value = &c.grpc.max_message_bytes}; }},
    {"Network", "idle-timeout", "An HTTP connection without a request is closed after this time.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.http.idle_timeout}; }},
    {"Network", "write-timeout", "A reader that takes nothing of its answer for this time is cut off.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.http.write_timeout}; }},

    {"Security", "api-keys", "File of API keys, as digests. Without it no key is asked for. SIGHUP reads it anew.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.auth.api_keys_file, "FILE"};
     }},
    {"Security", "trust-gateway",
     "The header x-llm-d-inference-fairness-id names the tenant. Only for a server that nobody but a gateway reaches, "
     "which sets or removes that header.",
     [](Config& c) -> SettingRef { return SwitchSetting{&c.auth.trust_gateway}; }},
    {"Security", "allowed-origins",
     "Origins of web pages that may use the HTTP API from a browser, such as https://chat.example.com; *: any.",
     [](Config& c) -> SettingRef {
       return ListSetting{&c.http.allowed_origins, "ORIGIN"};
     }},
    {"Security", "insecure", "Serve on an address that other machines reach, without keys.",
     [](Config& c) -> SettingRef { return SwitchSetting{&c.auth.insecure}; }},
    {"Security", "tls-cert", "PEM file with the certificate chain for HTTPS and gRPC; goes with tls-key.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.http.tls_cert_file, "FILE"};
     }},
    {"Security", "tls-key", "PEM file with the certificate's private key.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.http.tls_key_file, "FILE"};
     }},

    {"Operation", "drain-timeout", "After SIGTERM, how long streams may go on before they are cut off.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.drain_timeout, .may_be_zero = true}; }},
    {"Operation", "log-level", "The least severe messages that are logged, to standard error.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::string>{&c.log.level, kLogLevels};
     }},
    {"Operation", "log-format", "Lines of text, or one JSON object a line.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::string>{&c.log.format, kLogFormats};
     }},
};

// What one source says: setting -> its values.
using Values = std::map<std::string, std::vector<std::string>, std::less<>>;

const ConfigSetting* FindSetting(absl::string_view name) {
  const auto* found = std::find_if(std::begin(kSettings), std::end(kSettings),
                                   [name](const ConfigSetting& setting) { return setting.name == name; });
  return found == std::end(kSettings) ? nullptr : found;
}

bool IsList(const ConfigSetting& setting) {
  Config config;
  return std::holds_alternative<ListSetting>(setting.ref(config));
}

bool IsSwitch(const ConfigSetting& setting) {
  Config config;
  return std::holds_alternative<SwitchSetting>(setting.ref(config));
}

// "'--max-num-seq' is unknown; the nearest flag is --max-num-seqs". `write` spells a setting as this source does.
template <typename Write>
absl::Status Unknown(absl::string_view given, absl::string_view kind, const Write& write) {
  std::vector<std::string> names = {write(kConfigName)};
  for (const ConfigSetting& setting : kSettings) names.push_back(write(setting.name));
  return absl::InvalidArgumentError(
      absl::StrCat("'", given, "' is unknown; the nearest ", kind, " is ", NearestName(given, names)));
}

std::string FlagName(absl::string_view setting) { return absl::StrCat("--", setting); }

// CLI11's messages are for people, but may have line ends.
std::string OneLine(absl::string_view text) { return absl::StrReplaceAll(text, {{"\n", " "}}); }

// What belongs to no flag: a model directory, or a mistake.
absl::Status TakeExtras(const std::vector<std::string>& extras, Values& given) {
  for (const std::string& extra : extras) {
    if (absl::StartsWith(extra, "-")) return Unknown(extra.substr(0, extra.find('=')), "flag", FlagName);
  }
  if (extras.size() > 1) return absl::InvalidArgumentError(absl::StrCat("'", extras[1], "' is one argument too many"));
  if (!extras.empty()) given["model"].push_back(extras[0]);
  return absl::OkStatus();
}

absl::StatusOr<Values> ReadArguments(const std::vector<std::string>& args) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  Values given;
  app.add_option(FlagName(kConfigName), given[std::string(kConfigName)])->allow_extra_args(false);
  for (const ConfigSetting& setting : kSettings) {
    std::vector<std::string>& values = given[std::string(setting.name)];
    if (IsSwitch(setting)) {
      app.add_flag_function(FlagName(setting.name), [&values](int64_t) { values = {"true"}; });
    } else {
      app.add_option(FlagName(setting.name), values)->allow_extra_args(IsList(setting));
    }
  }
  try {
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));  // CLI11 takes them last first
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(OneLine(error.what()));
  }
  RETURN_IF_ERROR(TakeExtras(app.remaining(), given));
  for (const auto& [name, values] : given) {
    const ConfigSetting* setting = FindSetting(name);
    const bool list = setting != nullptr && IsList(*setting);
    if (!list && values.size() > 1) return absl::InvalidArgumentError(absl::StrCat("--", name, " is given twice"));
  }
  return given;
}

// Kubernetes describes every Service to every pod by variables of these shapes, so a Service called "weft" would
// configure the server.
bool IsServiceLink(absl::string_view name, absl::string_view value) {
  return absl::StartsWith(value, "tcp://") || absl::StartsWith(value, "udp://") ||
         absl::StartsWith(name, "WEFT_SERVICE_") || absl::StartsWith(name, "WEFT_PORT_");
}

absl::StatusOr<Values> ReadEnvironment(const std::vector<std::string>& environment) {
  Values given;
  for (absl::string_view entry : environment) {
    if (!absl::StartsWith(entry, kPrefix)) continue;
    const size_t equals = std::min(entry.find('='), entry.size());
    const absl::string_view name = entry.substr(0, equals);
    const absl::string_view value = entry.substr(std::min(equals + 1, entry.size()));
    if (IsServiceLink(name, value)) {
      return absl::InvalidArgumentError(absl::StrCat(
          name, " comes from a Kubernetes Service of this name: set enableServiceLinks: false in the pod"));
    }
    const std::string setting =
        absl::StrReplaceAll(absl::AsciiStrToLower(absl::StripPrefix(name, kPrefix)), {{"_", "-"}});
    const ConfigSetting* known = FindSetting(setting);
    if (known == nullptr && setting != kConfigName) return Unknown(name, "variable", EnvironmentName);
    if (known != nullptr && IsList(*known)) {
      given[setting] = absl::StrSplit(value, ' ', absl::SkipEmpty());
    } else {
      given[setting] = {std::string(value)};
    }
  }
  return given;
}

absl::StatusOr<Values> ReadFile(const std::string& path) {
  std::error_code ignored;
  std::ifstream file(path);  // which also opens a directory, and reads nothing from it
  if (!file || std::filesystem::is_directory(path, ignored))
    return absl::InvalidArgumentError(absl::StrCat("config: can't read '", path, "'"));
  std::vector<CLI::ConfigItem> items;
  try {
    // INI reads TOML's flat form too, and takes ; comments besides.
    items = CLI::ConfigINI().from_config(file);
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", OneLine(error.what())));
  }
  Values given;
  for (const CLI::ConfigItem& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // CLI11's marks for where a section begins and ends
    const std::string name = item.fullname();
    if (FindSetting(name) == nullptr) {
      const absl::Status unknown = Unknown(name, "key", [](absl::string_view setting) { return std::string(setting); });
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", unknown.message()));
    }
    if (!given.emplace(name, item.inputs).second) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": '", name, "' is set twice"));
    }
  }
  return given;
}

// Fills `config` from one source, with the words by which it calls a setting.
template <typename Write>
absl::Status Apply(const Values& given, Config& config, const Write& write) {
  for (const ConfigSetting& setting : kSettings) {
    const auto found = given.find(setting.name);
    if (found == given.end() || found->second.empty()) continue;
    if (absl::Status status = ReadSetting(setting.ref(config), found->second); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(write(setting.name), ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

std::string ConfigFile(const Values& flags, const Values& environment) {
  for (const Values* source : {&flags, &environment}) {
    const auto found = source->find(kConfigName);
    if (found != source->end() && !found->second.empty()) return found->second.front();
  }
  return "";
}

}  // namespace

absl::Span<const ConfigSetting> ConfigSettings() { return kSettings; }

std::string EnvironmentName(absl::string_view setting) {
  return absl::StrCat(kPrefix, absl::AsciiStrToUpper(absl::StrReplaceAll(setting, {{"-", "_"}})));
}

absl::StatusOr<Config> ParseConfig(const std::vector<std::string>& args, const std::vector<std::string>& environment) {
  ASSIGN_OR_RETURN(const Values flags, ReadArguments(args));
  ASSIGN_OR_RETURN(const Values variables, ReadEnvironment(environment));
  const std::string path = ConfigFile(flags, variables);
  Values file;
  if (!path.empty()) {
    ASSIGN_OR_RETURN(file, ReadFile(path));
  }
  // The weakest first, so that the stronger overwrite.
  Config config;
  RETURN_IF_ERROR(Apply(file, config, [&path](absl::string_view name) { return absl::StrCat(path, ": ", name); }));
  RETURN_IF_ERROR(Apply(variables, config, EnvironmentName));
  RETURN_IF_ERROR(Apply(flags, config, FlagName));
  RETURN_IF_ERROR(config.Validate());
  return config;
}

}  // namespace weft
