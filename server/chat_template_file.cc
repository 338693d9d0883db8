#include "server/chat_template_file.h"

#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/text/template_budget.h"
#include "server/text/tokenizer_json.h"

namespace weft {
namespace {

constexpr absl::string_view kTemplateFile = "chat_template.jinja";
constexpr absl::string_view kConfigFile = "tokenizer_config.json";
constexpr absl::string_view kDefaultName = "default";

struct TemplateSource {
  absl::string_view file;
  std::string text;
};

absl::Status Refuse(absl::string_view file, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", why));
}

// One byte more than a template may have, so that the parser refuses what is cut off here.
std::string ReadBounded(std::istream& file) {
  std::string text(TemplateLimits().max_source_bytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

absl::StatusOr<std::string> DefaultOf(const nlohmann::json& templates) {
  for (const nlohmann::json& entry : templates) {
    const bool named = entry.is_object() && entry.contains("name") && entry.contains("template");
    if (!named || !entry["template"].is_string()) {
      return Refuse(kConfigFile, "template_invalid: chat_template: an entry needs a name and a template");
    }
    if (entry["name"] == std::string(kDefaultName)) return entry["template"].get<std::string>();
  }
  return Refuse(kConfigFile, "template_not_found: chat_template: none of the templates is named default");
}

absl::StatusOr<std::optional<TemplateSource>> ReadConfigured(const std::string& model_dir) {
  const absl::StatusOr<nlohmann::json> config =
      ReadTokenizerJson(absl::StrCat(model_dir, "/", kConfigFile), kConfigFile);
  if (absl::IsNotFound(config.status())) return std::nullopt;
  RETURN_IF_ERROR(config.status());
  const auto found = config->is_object() ? config->find("chat_template") : config->end();
  if (found == config->end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return TemplateSource{kConfigFile, found->get<std::string>()};
  if (!found->is_array()) return Refuse(kConfigFile, "template_invalid: chat_template: neither a text nor a list");
  ASSIGN_OR_RETURN(std::string text, DefaultOf(*found));
  return TemplateSource{kConfigFile, std::move(text)};
}

absl::StatusOr<std::optional<TemplateSource>> ReadSource(const std::string& model_dir) {
  const std::string path = absl::StrCat(model_dir, "/", kTemplateFile);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return ReadConfigured(model_dir);
  // A pipe would keep the server waiting.
  if (!std::filesystem::is_regular_file(path, error)) return Refuse(kTemplateFile, "io_error: not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) return Refuse(kTemplateFile, "io_error: can't be read");
  return TemplateSource{kTemplateFile, ReadBounded(file)};
}

// Only what no conversation could mend counts; a template may well reject this one.
absl::Status Try(const ChatTemplate& chat_template) {
  const nlohmann::ordered_json inputs = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                                         {"add_generation_prompt", true}};
  const absl::Status status = chat_template.Render(inputs, absl::Now()).status();
  return absl::IsResourceExhausted(status) ? status : absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::optional<ChatTemplate>> LoadChatTemplate(const std::string& model_dir, const Tokenizer& tokenizer) {
  ASSIGN_OR_RETURN(const std::optional<TemplateSource> source, ReadSource(model_dir));
  if (!source.has_value()) return std::nullopt;
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source->text, tokenizer.bos_token(), tokenizer.eos_token());
  if (!parsed.ok()) return Refuse(source->file, parsed.status().message());
  if (absl::Status tried = Try(*parsed); !tried.ok()) return Refuse(source->file, tried.message());
  return std::optional<ChatTemplate>(*std::move(parsed));
}

}  // namespace weft
