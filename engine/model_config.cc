#include "engine/model_config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "engine/model_file.h"
#include "engine/model_json.h"
#include "engine/moe_config.h"
#include "engine/rope_config.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxConfigBytes = uint64_t{1} << 20;
constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationFile[] = "generation_config.json";

// Which layers look through a window, unless `layer_types` says it.
enum class Window {
  kNone,
  kAll,         // where sliding_window is no null
  kAllIfUsed,   // here and below: where use_sliding_window says so
  kLateIfUsed,  // those from max_window_layers on
  kEvenIfUsed,  // 0, 2, ... below max_window_layers
};

// What transformers' configuration classes assume of a field that is left out.
struct Family {
  const char* model_type;
  const char* architecture;
  bool qkv_bias = false;              // there, unless reads_qkv_bias and qkv_bias says no
  bool reads_qkv_bias = false;        // qkv_bias: Q, K and V
  bool reads_attention_bias = false;  // attention_bias: Q, K, V and output
  bool reads_mlp_bias = false;
  bool qk_norm = false;
  bool kv_heads_optional = false;  // num_key_value_heads may be left out: as many as query heads
  int64_t default_head_dim = 0;    // 0: hidden_size / num_attention_heads
  Window window = Window::kNone;
  int64_t default_sliding_window = 0;  // 0: none
  double default_rope_theta = 10000.0;
  const MoeFamily* moe = nullptr;  // null: a dense model
};

constexpr Family kFamilies[] = {
    {.model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .reads_attention_bias = true,
     .reads_mlp_bias = true,
     .kv_heads_optional = true},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .window = Window::kAll,
     .default_sliding_window = 4096},
    {.model_type = "mixtral",
     .architecture = "MixtralForCausalLM",
     .window = Window::kAll,
     .default_rope_theta = 1e6,
     .moe = &kMixtralExperts},
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .qkv_bias = true,
     .window = Window::kLateIfUsed,
     .default_sliding_window = 4096},
    {.model_type = "qwen2_moe",
     .architecture = "Qwen2MoeForCausalLM",
     .qkv_bias = true,
     .reads_qkv_bias = true,
     .window = Window::kEvenIfUsed,
     .default_sliding_window = 4096,
     .moe = &kQwen2Experts},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .reads_attention_bias = true,
     .qk_norm = true,
     .default_head_dim = 128,
     .window = Window::kLateIfUsed,
     .default_sliding_window = 4096},
    {.model_type = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .reads_attention_bias = true,
     .qk_norm = true,
     .window = Window::kAllIfUsed,
     .default_sliding_window = 4096,
     .moe = &kQwen3Experts},
};

absl::StatusOr<json> ReadJson(const ModelDir& dir, const char* name) {
  ASSIGN_OR_RETURN(const std::string text, ReadModelFile(dir, name, kMaxConfigBytes));
  return ParseModelJson(absl::StrCat(dir.path, "/", name), text);
}

absl::StatusOr<const Family*> FindFamily(const ModelJsonFields& fields) {
  ASSIGN_OR_RETURN(const std::string model_type, fields.String("model_type"));
  const json* architectures = fields.Find("architectures");
  for (const Family& family : kFamilies) {
    if (model_type != family.model_type) continue;
    if (architectures == nullptr || *architectures == json::array({family.architecture})) return &family;
    return fields.Error("unsupported_model", "architectures",
                        absl::StrCat("is not [", Quoted(family.architecture), "] though model_type is ", model_type));
  }
  const auto name = [](std::string* out, const Family& family) { out->append(family.model_type); };
  return fields.Error("unsupported_model", "model_type",
                      absl::StrCat("is ", Quoted(model_type), "; known: ", absl::StrJoin(kFamilies, ", ", name)));
}

// What would change the computation and isn't done here.
absl::Status CheckSupported(const ModelJsonFields& fields) {
  if (fields.Has("quantization_config")) {
    return fields.Error("unsupported_quantization", "quantization_config", "is set; give the unquantised checkpoint");
  }
  if (fields.Has("hidden_act")) {
    ASSIGN_OR_RETURN(const std::string activation, fields.String("hidden_act"));
    if (activation != "silu" && activation != "swish") {
      return fields.Error("unsupported_model", "hidden_act", absl::StrCat("is ", Quoted(activation), ", not silu"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSizes(const ModelJsonFields& fields, const Family& family, ModelConfig& config) {
  const auto read = [&](const char* name, int64_t high, auto& out) -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t value, fields.Int(name, {1, high}));
    out = static_cast<std::decay_t<decltype(out)>>(value);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(read("vocab_size", 1 << 22, config.vocab_size));
  RETURN_IF_ERROR(read("hidden_size", 1 << 17, config.hidden_size));
  RETURN_IF_ERROR(read("intermediate_size", 1 << 20, config.intermediate_size));
  RETURN_IF_ERROR(read("num_hidden_layers", 1 << 11, config.num_layers));
  RETURN_IF_ERROR(read("num_attention_heads", 1 << 12, config.num_heads));
  RETURN_IF_ERROR(read("max_position_embeddings", kMaxPositions, config.max_position_embeddings));
  config.num_kv_heads = config.num_heads;
  if (fields.Has("num_key_value_heads") || !family.kv_heads_optional) {
    RETURN_IF_ERROR(read("num_key_value_heads", 1 << 12, config.num_kv_heads));
  }
  if (fields.Has("head_dim")) return read("head_dim", 1 << 10, config.head_dim);
  config.head_dim = static_cast<int>(family.default_head_dim);
  if (config.head_dim != 0) return absl::OkStatus();
  if (config.hidden_size % config.num_heads != 0) {
    return fields.Error("inconsistent", "hidden_size",
                        absl::StrCat(config.hidden_size, " is no multiple of num_attention_heads ", config.num_heads));
  }
  config.head_dim = config.hidden_size / config.num_heads;
  return absl::OkStatus();
}

absl::Status CheckHeads(const ModelJsonFields& fields, const ModelConfig& config) {
  if (config.num_heads % config.num_kv_heads != 0) {
    return fields.Error("inconsistent", "num_attention_heads",
                        absl::StrCat(config.num_heads, " is no multiple of num_key_value_heads ", config.num_kv_heads));
  }
  if (config.head_dim % 2 != 0) {
    return fields.Error("inconsistent", "head_dim", absl::StrCat(config.head_dim, " is odd"));
  }
  return absl::OkStatus();
}

absl::Status ReadBiasesAndNorms(const ModelJsonFields& fields, const Family& family, ModelConfig& config) {
  ASSIGN_OR_RETURN(const bool attention_bias, fields.Bool("attention_bias", false));
  ASSIGN_OR_RETURN(const bool mlp_bias, fields.Bool("mlp_bias", false));
  ASSIGN_OR_RETURN(const bool qkv_bias, fields.Bool("qkv_bias", true));
  config.qkv_bias =
      (family.qkv_bias && (qkv_bias || !family.reads_qkv_bias)) || (family.reads_attention_bias && attention_bias);
  config.output_bias = family.reads_attention_bias && attention_bias;
  config.mlp_bias = family.reads_mlp_bias && mlp_bias;
  config.qk_norm = family.qk_norm;
  ASSIGN_OR_RETURN(const double eps, fields.Number("rms_norm_eps", {1e-12, 0.1}));
  config.rms_norm_eps = static_cast<float>(eps);
  ASSIGN_OR_RETURN(config.tie_word_embeddings, fields.Bool("tie_word_embeddings", false));
  return absl::OkStatus();
}

// Which layers look through a window, said layer by layer.
absl::Status ReadLayerTypes(const ModelJsonFields& fields, int64_t window, ModelConfig& config) {
  const json& types = *fields.Find("layer_types");
  if (!types.is_array() || types.size() != static_cast<size_t>(config.num_layers)) {
    return fields.Error("inconsistent", "layer_types", "is not a list of num_hidden_layers entries");
  }
  for (size_t layer = 0; layer < types.size(); ++layer) {
    if (types[layer] == "full_attention") continue;
    if (types[layer] != "sliding_attention") {
      return fields.Error("unsupported_model", "layer_types", "holds another word than full_ and sliding_attention");
    }
    if (window == 0) return fields.Error("inconsistent", "layer_types", "has sliding_attention, but no window is used");
    config.sliding_window[layer] = window;
  }
  return absl::OkStatus();
}

// The width of the window; 0 when none is used.
absl::StatusOr<int64_t> ReadWindowWidth(const ModelJsonFields& fields, const json& object, const Family& family) {
  ASSIGN_OR_RETURN(const bool use, fields.Bool("use_sliding_window", false));
  if (family.window != Window::kAll && !use) return 0;
  // A null means "no window", an absent field the default.
  const bool absent = !object.contains("sliding_window");
  return fields.Int("sliding_window", {1, int64_t{1} << 40}, absent ? family.default_sliding_window : 0);
}

absl::Status ReadSlidingWindow(const ModelJsonFields& fields, const json& object, const Family& family,
                               ModelConfig& config) {
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), 0);
  if (family.window == Window::kNone) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t width, ReadWindowWidth(fields, object, family));
  if (family.window == Window::kAll || family.window == Window::kAllIfUsed) {
    config.sliding_window.assign(config.sliding_window.size(), width);
    return absl::OkStatus();
  }
  if (fields.Has("layer_types")) return ReadLayerTypes(fields, width, config);
  ASSIGN_OR_RETURN(const int64_t border, fields.Int("max_window_layers", {0, 1 << 20}, 28));
  const bool late = family.window == Window::kLateIfUsed;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const bool looks = late ? layer >= border : layer < border && layer % 2 == 0;
    if (looks) config.sliding_window[static_cast<size_t>(layer)] = width;
  }
  return absl::OkStatus();
}

absl::Status ReadDType(const ModelJsonFields& fields, ModelConfig& config) {
  const char* name = fields.Has("dtype") ? "dtype" : "torch_dtype";
  if (!fields.Has(name)) return absl::OkStatus();  // float32, as transformers has it
  ASSIGN_OR_RETURN(const std::string dtype, fields.String(name));
  if (dtype == "float32")
    config.dtype = DType::kF32;
  else if (dtype == "bfloat16")
    config.dtype = DType::kBF16;
  else if (dtype == "float16")
    config.dtype = DType::kF16;
  else
    return fields.Error("out_of_range", name, absl::StrCat("is ", Quoted(dtype), ", not float32, bfloat16 or float16"));
  return absl::OkStatus();
}

absl::StatusOr<int32_t> TokenId(const ModelJsonFields& fields, absl::string_view name, const json& value,
                                int32_t vocab_size) {
  if (!value.is_number_integer()) return fields.Error("missing_field", name, "is not an integer");
  if (value < 0 || value >= vocab_size) {
    return fields.Error("out_of_range", name, absl::StrCat(value.dump(), " is not in the vocabulary of ", vocab_size));
  }
  return value.get<int32_t>();
}

// A number or a list of them; leaves `ids` as it was when the field is absent.
absl::Status ReadEosIds(const ModelJsonFields& fields, int32_t vocab_size, std::vector<int32_t>& ids) {
  constexpr size_t kMaxEosIds = 256;
  constexpr char kName[] = "eos_token_id";
  const json* value = fields.Find(kName);
  if (value == nullptr) return absl::OkStatus();
  const json list = value->is_array() ? *value : json::array({*value});
  if (list.size() > kMaxEosIds) {
    return fields.Error("out_of_range", kName, absl::StrCat("has ", list.size(), " ids, at most ", kMaxEosIds));
  }
  std::vector<int32_t> found;
  for (const json& id : list) {
    ASSIGN_OR_RETURN(const int32_t token, TokenId(fields, kName, id, vocab_size));
    found.push_back(token);
  }
  ids = std::move(found);
  return absl::OkStatus();
}

absl::Status ReadTokenIds(const ModelDir& dir, const ModelJsonFields& fields, ModelConfig& config) {
  if (const json* bos = fields.Find("bos_token_id"); bos != nullptr) {
    ASSIGN_OR_RETURN(config.bos_token_id, TokenId(fields, "bos_token_id", *bos, config.vocab_size));
  }
  RETURN_IF_ERROR(ReadEosIds(fields, config.vocab_size, config.eos_token_ids));
  if (!ModelFileExists(dir, kGenerationFile)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const json generation, ReadJson(dir, kGenerationFile));
  return ReadEosIds(ModelJsonFields(absl::StrCat(dir.path, "/", kGenerationFile), "", generation), config.vocab_size,
                    config.eos_token_ids);
}

}  // namespace

absl::StatusOr<ModelConfig> LoadModelConfig(const ModelDir& dir) {
  ASSIGN_OR_RETURN(const json object, ReadJson(dir, kConfigFile));
  const std::string file = absl::StrCat(dir.path, "/", kConfigFile);
  const ModelJsonFields fields(file, "", object);
  ASSIGN_OR_RETURN(const Family* family, FindFamily(fields));
  ModelConfig config;
  config.model_type = family->model_type;
  config.architecture = family->architecture;
  config.rope_theta = family->default_rope_theta;
  RETURN_IF_ERROR(CheckSupported(fields));
  RETURN_IF_ERROR(ReadSizes(fields, *family, config));
  RETURN_IF_ERROR(CheckHeads(fields, config));
  RETURN_IF_ERROR(ReadBiasesAndNorms(fields, *family, config));
  RETURN_IF_ERROR(ReadSlidingWindow(fields, object, *family, config));
  if (family->moe != nullptr) RETURN_IF_ERROR(ReadMoe(fields, *family->moe, config));
  RETURN_IF_ERROR(ReadRope(file, fields, config));
  RETURN_IF_ERROR(ReadDType(fields, config));
  RETURN_IF_ERROR(ReadTokenIds(dir, fields, config));
  if (fields.Has("auto_map")) {
    config.warnings.push_back(absl::StrCat(file, ": auto_map is ignored: code of a model directory never runs"));
  }
  return config;
}

absl::StatusOr<GenerationConfig> LoadGenerationConfig(const ModelDir& dir) {
  GenerationConfig config;
  if (!ModelFileExists(dir, kGenerationFile)) return config;
  ASSIGN_OR_RETURN(const json object, ReadJson(dir, kGenerationFile));
  const ModelJsonFields fields(absl::StrCat(dir.path, "/", kGenerationFile), "", object);
  const auto number = [&](const char* name, Range<double> range, std::optional<float>& out) -> absl::Status {
    if (!fields.Has(name)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const double value, fields.Number(name, range));
    out = static_cast<float>(value);
    return absl::OkStatus();
  };
  const auto integer = [&](const char* name, Range<int64_t> range, std::optional<int32_t>& out) -> absl::Status {
    if (!fields.Has(name)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const int64_t value, fields.Int(name, range));
    out = static_cast<int32_t>(value);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(number("temperature", {0, 100}, config.temperature));
  RETURN_IF_ERROR(number("top_p", {0, 1}, config.top_p));
  RETURN_IF_ERROR(number("min_p", {0, 1}, config.min_p));
  RETURN_IF_ERROR(number("repetition_penalty", {1e-3, 100}, config.repetition_penalty));
  RETURN_IF_ERROR(integer("top_k", {0, INT32_MAX}, config.top_k));
  RETURN_IF_ERROR(integer("max_new_tokens", {1, INT32_MAX}, config.max_new_tokens));
  return config;
}

}  // namespace weft
