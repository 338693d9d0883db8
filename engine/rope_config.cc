#include "engine/rope_config.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/model_file.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using Kind = RopeScaling::Kind;

constexpr Range<double> kFactorRange{1.0, 1e6};

// Whatever is wrong with a rotary field has one code word.
absl::Status AsUnsupportedRope(const std::string& file, const absl::Status& status) {
  if (status.ok()) return status;
  // "FILE: code: field ...", of which field and detail stay.
  absl::string_view message = status.message();
  message.remove_prefix(file.size() + 2);
  message.remove_prefix(message.find(": ") + 2);
  return ModelFileError(file, "unsupported_rope", message);
}

absl::StatusOr<Kind> ReadKind(const ModelJsonFields& rope) {
  const char* name = rope.Has("rope_type") ? "rope_type" : "type";
  if (!rope.Has(name)) return Kind::kNone;
  ASSIGN_OR_RETURN(const std::string kind, rope.String(name));
  if (kind == "default") return Kind::kNone;
  if (kind == "linear") return Kind::kLinear;
  if (kind == "dynamic") return Kind::kDynamic;
  if (kind == "llama3") return Kind::kLlama3;
  if (kind == "yarn") return Kind::kYarn;
  return rope.Error("unsupported_rope", name,
                    absl::StrCat("is ", Quoted(kind), "; known: default, linear, dynamic, llama3, yarn"));
}

absl::StatusOr<std::optional<double>> OptionalNumber(const ModelJsonFields& fields, absl::string_view name,
                                                     Range<double> range) {
  if (!fields.Has(name)) return std::nullopt;
  ASSIGN_OR_RETURN(const double value, fields.Number(name, range));
  return value;
}

// The context the model was trained on: a field beside the rope parameters wins over one among them.
absl::StatusOr<int64_t> ReadOriginalContext(const ModelJsonFields& fields, const ModelJsonFields& rope,
                                            int64_t fallback) {
  const char* name = "original_max_position_embeddings";
  const Range<int64_t> range{1, kMaxPositions};
  return fields.Has(name) ? fields.Int(name, range) : rope.Int(name, range, fallback);
}

absl::Status ReadLlama3(const ModelJsonFields& rope, RopeScaling& scaling) {
  ASSIGN_OR_RETURN(scaling.low_freq_factor, rope.Number("low_freq_factor", {1e-6, 1e6}));
  ASSIGN_OR_RETURN(scaling.high_freq_factor, rope.Number("high_freq_factor", {1e-6, 1e6}));
  if (scaling.high_freq_factor > scaling.low_freq_factor) return absl::OkStatus();
  return rope.Error("unsupported_rope", "high_freq_factor", "is not above low_freq_factor");
}

absl::Status ReadYarn(const ModelJsonFields& rope, RopeScaling& scaling) {
  ASSIGN_OR_RETURN(scaling.beta_fast, rope.Number("beta_fast", {0, 1e6}, 32.0));
  ASSIGN_OR_RETURN(scaling.beta_slow, rope.Number("beta_slow", {0, 1e6}, 1.0));
  // transformers takes zero for "not given".
  if (scaling.beta_fast == 0) scaling.beta_fast = 32.0;
  if (scaling.beta_slow == 0) scaling.beta_slow = 1.0;
  ASSIGN_OR_RETURN(scaling.attention_factor, OptionalNumber(rope, "attention_factor", {1e-6, 1e6}));
  ASSIGN_OR_RETURN(scaling.mscale, OptionalNumber(rope, "mscale", {0, 1e6}));
  ASSIGN_OR_RETURN(scaling.mscale_all_dim, OptionalNumber(rope, "mscale_all_dim", {0, 1e6}));
  ASSIGN_OR_RETURN(scaling.truncate, rope.Bool("truncate", true));
  if (scaling.beta_fast > scaling.beta_slow) return absl::OkStatus();
  return rope.Error("unsupported_rope", "beta_fast", "is not above beta_slow");
}

absl::Status ReadScaling(const ModelJsonFields& fields, const ModelJsonFields& rope, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  ASSIGN_OR_RETURN(scaling.kind, ReadKind(rope));
  if (scaling.kind == Kind::kNone) return absl::OkStatus();
  ASSIGN_OR_RETURN(scaling.original_max_position_embeddings,
                   ReadOriginalContext(fields, rope, config.max_position_embeddings));
  // A yarn configuration may leave the factor to the ratio of the two context lengths.
  const double ratio = static_cast<double>(config.max_position_embeddings) /
                       static_cast<double>(scaling.original_max_position_embeddings);
  if (scaling.kind == Kind::kYarn && !rope.Has("factor")) {
    scaling.factor = ratio;
  } else {
    ASSIGN_OR_RETURN(scaling.factor, rope.Number("factor", kFactorRange));
  }
  switch (scaling.kind) {
    case Kind::kLlama3:
      return ReadLlama3(rope, scaling);
    case Kind::kYarn:
      return ReadYarn(rope, scaling);
    case Kind::kDynamic:
      // transformers measures the growth from max_position_embeddings, whatever else the configuration says.
      scaling.original_max_position_embeddings = config.max_position_embeddings;
      if (config.head_dim > 2) return absl::OkStatus();
      return rope.Error("unsupported_rope", "type", "is dynamic, which needs a head_dim above 2");
    case Kind::kLinear:
    case Kind::kNone:
      break;
  }
  return absl::OkStatus();
}

absl::Status ReadTheta(const ModelJsonFields& fields, const ModelJsonFields& rope, ModelConfig& config) {
  constexpr Range<double> kThetaRange{1.0 + 1e-6, 1e12};
  const ModelJsonFields& holder = rope.Has("rope_theta") ? rope : fields;
  ASSIGN_OR_RETURN(config.rope_theta, holder.Number("rope_theta", kThetaRange, config.rope_theta));
  // None of the families turns a part of a head only, and transformers has no meaning for it there.
  const ModelJsonFields& partial = rope.Has("partial_rotary_factor") ? rope : fields;
  return partial.Number("partial_rotary_factor", {1.0, 1.0}, 1.0).status();
}

}  // namespace

absl::Status ReadRope(const std::string& file, const ModelJsonFields& fields, ModelConfig& config) {
  static const nlohmann::json kNone = nlohmann::json::object();
  const char* name = fields.Has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  const nlohmann::json* found = fields.Find(name);
  if (found != nullptr && !found->is_object()) return fields.Error("unsupported_rope", name, "is not an object");
  const nlohmann::json& object = found == nullptr ? kNone : *found;
  for (const auto& [key, value] : object.items()) {
    if (!value.is_object()) continue;
    return fields.Error("unsupported_rope", name, absl::StrCat("differs by layer: ", Quoted(key)));
  }
  const ModelJsonFields rope(file, absl::StrCat(name, "."), object);
  RETURN_IF_ERROR(AsUnsupportedRope(file, ReadTheta(fields, rope, config)));
  return AsUnsupportedRope(file, ReadScaling(fields, rope, config));
}

}  // namespace weft
