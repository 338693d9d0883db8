#include "server/text/chat_template_loader.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kTemplateFile[] = "chat_template.jinja";
constexpr char kConfigFile[] = "tokenizer_config.json";
constexpr uintmax_t kMaxFileBytes = 64 << 20;  // tokenizer_config.json lists added tokens; real ones stay below 1 MiB

// The sources of a model directory and the file they came from.
struct Sources {
  std::string file;
  std::string main;
  std::optional<std::string> tool_use;
};

absl::Status InFile(absl::string_view file, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}

absl::Status Invalid(absl::string_view file, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": template_invalid: ", what));
}

// The whole file; nullopt when there is none.
absl::StatusOr<std::optional<std::string>> ReadUnchecked(const std::string& dir, const std::string& name) {
  std::filesystem::path path = std::filesystem::path(dir) / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  // A pipe would keep the server waiting.
  uintmax_t size = std::filesystem::is_regular_file(path, error) ? std::filesystem::file_size(path, error) : 0;
  if (error || size == 0) return Invalid(name, "can't be read");
  if (size > kMaxFileBytes) return Invalid(name, "too large");
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  if (!file) return Invalid(name, "can't be read");
  return content.str();
}

absl::StatusOr<std::optional<std::string>> ReadFile(const std::string& dir, const std::string& name,
                                                    const FileCheck& check) {
  ASSIGN_OR_RETURN(std::optional<std::string> text, ReadUnchecked(dir, name));
  if (check != nullptr) RETURN_IF_ERROR(check(name, text ? &*text : nullptr));
  return text;
}

absl::StatusOr<Json> ReadConfig(const std::string& dir, const FileCheck& check) {
  ASSIGN_OR_RETURN(std::optional<std::string> text, ReadFile(dir, kConfigFile, check));
  if (!text) return Json::object();
  Json config = Json::parse(*text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return Invalid(kConfigFile, "not a JSON object");
  return config;
}

// A token is a string, or an object with "content"; anything else, such as null, is none.
std::string TokenText(const Json& config, const char* name) {
  auto it = config.find(name);
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_object()) return "";
  auto content = it->find("content");
  return content != it->end() && content->is_string() ? content->get<std::string>() : "";
}

absl::StatusOr<Sources> SourcesFromList(const Json& list) {
  Sources sources{kConfigFile, "", std::nullopt};
  bool has_default = false;
  for (const Json& entry : list) {
    if (!entry.is_object()) return Invalid(kConfigFile, "chat_template: an entry that is no object");
    auto name = entry.find("name");
    auto source = entry.find("template");
    bool complete = name != entry.end() && name->is_string() && source != entry.end() && source->is_string();
    if (!complete) return Invalid(kConfigFile, "chat_template: an entry without name or template");
    if (*name == "default") {
      has_default = true;
      sources.main = source->get<std::string>();
    }
    if (*name == "tool_use") sources.tool_use = source->get<std::string>();
  }
  if (!has_default) {
    return absl::InvalidArgumentError(
        absl::StrCat(kConfigFile, ": template_not_found: chat_template has no entry named default"));
  }
  return sources;
}

absl::StatusOr<Sources> FindSources(const std::string& dir, const Json& config, const FileCheck& check) {
  ASSIGN_OR_RETURN(std::optional<std::string> file, ReadFile(dir, kTemplateFile, check));
  if (file) return Sources{kTemplateFile, *std::move(file), std::nullopt};
  auto it = config.find("chat_template");
  if (it == config.end() || it->is_null()) {
    return absl::NotFoundError(absl::StrCat(dir, ": template_not_found: the model has no chat template"));
  }
  if (it->is_string()) return Sources{kConfigFile, it->get<std::string>(), std::nullopt};
  if (!it->is_array()) return Invalid(kConfigFile, "chat_template is neither a string nor a list");
  return SourcesFromList(*it);
}

// Only running out of budget counts: a template may well want other messages than these.
absl::Status TryOut(const ChatTemplate& chat_template) {
  Json inputs = {{"messages", Json::array({{{"role", "user"}, {"content", "Hi"}}})}, {"add_generation_prompt", true}};
  absl::Status status = chat_template.Render(inputs, absl::UnixEpoch()).status();
  return absl::IsResourceExhausted(status) ? status : absl::OkStatus();
}

absl::StatusOr<ChatTemplate> ParseAndTry(const Sources& sources, const std::string& source, const Json& config) {
  absl::StatusOr<ChatTemplate> parsed =
      ChatTemplate::Parse(source, TokenText(config, "bos_token"), TokenText(config, "eos_token"));
  if (!parsed.ok()) return InFile(sources.file, parsed.status());
  absl::Status tried = TryOut(*parsed);
  if (!tried.ok()) return InFile(sources.file, tried);
  return parsed;
}

}  // namespace

absl::StatusOr<ChatTemplates> LoadChatTemplate(const std::string& dir, const FileCheck& check) {
  ASSIGN_OR_RETURN(Json config, ReadConfig(dir, check));
  ASSIGN_OR_RETURN(Sources sources, FindSources(dir, config, check));
  ASSIGN_OR_RETURN(ChatTemplate main, ParseAndTry(sources, sources.main, config));
  ChatTemplates templates{std::move(main), std::nullopt};
  if (sources.tool_use) {
    ASSIGN_OR_RETURN(templates.tool_use, ParseAndTry(sources, *sources.tool_use, config));
  }
  return templates;
}

}  // namespace weft
