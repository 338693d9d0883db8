// Every setting there is: the one table that flags, variables, files and help are made from.
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "server/config_flags.h"

namespace weft {
namespace {

constexpr std::pair<absl::string_view, LoadFormat> kLoadFormats[] = {{"safetensors", LoadFormat::kSafetensors},
                                                                     {"dummy", LoadFormat::kDummy}};
constexpr std::pair<absl::string_view, std::optional<DType>> kWeightDTypes[] = {
    {"auto", std::nullopt}, {"f32", DType::kF32}, {"bf16", DType::kBF16}, {"f16", DType::kF16}, {"int8", DType::kI8}};
const std::pair<absl::string_view, std::string> kLogLevels[] = {
    {"trace", "trace"}, {"debug", "debug"}, {"info", "info"}, {"warn", "warn"}, {"error", "error"}};
const std::pair<absl::string_view, std::string> kLogFormats[] = {{"text", "text"}, {"json", "json"}};

constexpr std::pair<absl::string_view, PrefixCache> kPrefixCaches[] = {
    {"tenant", PrefixCache::kTenant}, {"all", PrefixCache::kAll}, {"off", PrefixCache::kOff}};

constexpr std::pair<absl::string_view, std::optional<WorkerKind>> kWorkerKinds[] = {
    {"auto", std::nullopt}, {"threads", WorkerKind::kThreads}, {"process", WorkerKind::kProcesses}};

constexpr std::pair<absl::string_view, std::optional<DeviceKind>> kDeviceKinds[] = {
    {"auto", std::nullopt}, {"cpu", DeviceKind::kCpu}, {"cuda", DeviceKind::kCuda}};
constexpr std::pair<absl::string_view, std::optional<DType>> kActivationDTypes[] = {
    {"auto", std::nullopt}, {"bf16", DType::kBF16}, {"f16", DType::kF16}};

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

    {"Engine", "device",
     "What computes: the CPU, or CUDA devices, one for each rank. auto: CUDA where there is a device.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::optional<DeviceKind>>{&c.engine.device, kDeviceKinds};
     }},
    {"Engine", "activation-dtype",
     "What activations and cached keys and values are on CUDA devices. auto: f16 for weights of f16, else bf16.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::optional<DType>>{&c.engine.activation_dtype, kActivationDTypes};
     }},
    {"Engine", "fast-linears",
     "On CUDA devices, linears of 16 bits take the fastest kernel for a step's size. A token's last bits then depend "
     "on "
     "who shares its step, and one in many may differ after a replica's death.",
     [](Config& c) -> SettingRef { return SwitchSetting{&c.engine.fast_linears}; }},
    {"Engine", "replicas",
     "Copies of the model that serve side by side. They share the threads, the memory for the KV cache, and, where "
     "ranks are threads, the weights.",
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
     "a quarter of the memory; on CUDA devices, what remains of nine tenths of theirs.",
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
    {"Engine", "max-prefill-share",
     "Part of max-num-batched-tokens, and of max-itl, that prompts may take while others decode.",
     [](Config& c) -> SettingRef { return FractionSetting{.value = &c.engine.max_prefill_share, .least = 0.05}; }},
    {"Engine", "max-itl",
     "Prompts are cut, and fewer sequences run at once, so that a step, and so the time between two tokens of others, "
     "takes no longer. 0s: no bound.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.engine.max_itl, .may_be_zero = true}; }},

    {"Engine", "restart-limit", "A replica whose engine died so often within ten minutes is not started again.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.engine.restarts.limit, .most = 1 << 20}; }},
    {"Engine", "restart-backoff",
     "Wait before a replica's second restart within ten minutes; then twice that, and so on, up to 30s.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.engine.restarts.backoff, .may_be_zero = true}; }},

    {"Workers", "workers",
     "What ranks are: threads of the server, or processes. A process that dies costs its replica a restart, and no "
     "request. auto: processes on CUDA devices and with several hosts, else threads.",
     [](Config& c) -> SettingRef {
       return WordSetting<std::optional<WorkerKind>>{&c.workers.kind, kWorkerKinds};
     }},
    {"Workers", "step-timeout",
     "A step that takes longer than this, and twenty times as long as others, is hung: its engine is ended.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.workers.step_timeout}; }},
    {"Workers", "join-timeout", "How long workers may take to come when an engine starts.",
     [](Config& c) -> SettingRef { return DurationSetting{.value = &c.workers.join_timeout}; }},
    {"Workers", "worker-wrapper", "Words before the command that starts a worker process, such as numactl -m 0.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.workers.wrapper, "WORDS"};
     }},
    {"Workers", "num-nodes",
     "Hosts that share the replica's ranks, this one among them; on each of the others runs weft worker.",
     [](Config& c) -> SettingRef { return NumberSetting{.value = &c.workers.num_nodes, .most = 1024}; }},
    {"Workers", "coordinator", "host:port that workers of other hosts join at, as they reach this host.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.workers.coordinator, "ADDRESS"};
     }},
    {"Workers", "worker-tls-cert", "PEM file with this host's certificate chain, for workers of other hosts.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.workers.tls_cert_file, "FILE"};
     }},
    {"Workers", "worker-tls-key", "PEM file with its private key.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.workers.tls_key_file, "FILE"};
     }},
    {"Workers", "worker-tls-ca", "PEM file with the authority that signed the workers' certificates.",
     [](Config& c) -> SettingRef {
       return TextSetting{&c.workers.tls_ca_file, "FILE"};
     }},

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

}  // namespace

absl::Span<const ConfigSetting> ConfigSettings() { return kSettings; }

}  // namespace weft
