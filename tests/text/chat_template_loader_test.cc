#include "server/text/chat_template_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

namespace weft {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

// A model directory with the given files, removed at the end.
class ModelDir {
 public:
  explicit ModelDir(const std::map<std::string, std::string>& files) {
    std::string pattern = (std::filesystem::temp_directory_path() / "weft_template_XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    for (const auto& [name, content] : files) std::ofstream(path_ + "/" + name) << content;
  }
  ~ModelDir() { std::filesystem::remove_all(path_); }
  ModelDir(const ModelDir&) = delete;
  ModelDir& operator=(const ModelDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The prompt for a conversation with or without tools, or the load error.
std::string Load(const std::map<std::string, std::string>& files, bool has_tools = false) {
  ModelDir dir(files);
  absl::StatusOr<ChatTemplates> templates = LoadChatTemplate(dir.path());
  if (!templates.ok()) return templates.status().ToString();
  auto segments = templates->For(has_tools).Render({{"messages", Json::array()}}, absl::UnixEpoch());
  if (!segments.ok()) return segments.status().ToString();
  std::string text;
  for (const TextSegment& segment : *segments) text += segment.text;
  return text;
}

TEST(ChatTemplateLoaderTest, ReadsEveryFormOfTemplateAndTokens) {
  const std::string list = R"({"bos_token": "B", "chat_template": [
      {"name": "rag", "template": "r"}, {"name": "default", "template": "{{ bos_token }}d"},
      {"name": "tool_use", "template": "t"}]})";
  EXPECT_EQ(Load({{"tokenizer_config.json", R"({"bos_token": "B", "eos_token": {"content": "E"},
                                               "chat_template": "{{ bos_token }}{{ eos_token }}x"})"}}),
            "BEx");
  EXPECT_EQ(Load({{"chat_template.jinja", "file{{ eos_token }}"},
                  {"tokenizer_config.json", R"({"eos_token": "E", "chat_template": "config"})"}}),
            "fileE");
  EXPECT_EQ(Load({{"chat_template.jinja", "file"}}), "file");
  EXPECT_EQ(Load({{"tokenizer_config.json", list}}), "Bd");
  EXPECT_EQ(Load({{"tokenizer_config.json", list}}, /*has_tools=*/true), "t");
}

TEST(ChatTemplateLoaderTest, NamesFileAndReason) {
  struct Case {
    std::map<std::string, std::string> files;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {{}, "NOT_FOUND"},
      {{{"tokenizer_config.json", R"({"chat_template": null})"}}, "template_not_found"},
      {{{"tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "x"}]})"}},
       "INVALID_ARGUMENT: tokenizer_config.json: template_not_found"},
      {{{"tokenizer_config.json", R"({"chat_template": 5})"}}, "tokenizer_config.json: template_invalid"},
      {{{"tokenizer_config.json", R"({"chat_template": ["x"]})"}}, "tokenizer_config.json: template_invalid"},
      {{{"tokenizer_config.json", "{"}}, "tokenizer_config.json: template_invalid"},
      {{{"tokenizer_config.json", R"({"chat_template": "\n{% if %}"})"}},
       "INVALID_ARGUMENT: tokenizer_config.json: template_invalid: line 2"},
      {{{"chat_template.jinja", "{{ x | nope }}"}}, "chat_template.jinja: template_unsupported: line 1"},
      {{{"chat_template.jinja", "{% for i in range(10**9) %}{% endfor %}"}}, "chat_template.jinja: template_budget"},
  };
  for (const Case& test : cases) EXPECT_THAT(Load(test.files), HasSubstr(test.expected));
}

TEST(ChatTemplateLoaderTest, LoadsATemplateThatRejectsTheTrialMessages) {
  EXPECT_THAT(Load({{"chat_template.jinja", "{{ raise_exception('no') }}"}}), HasSubstr("template_rejected"));
}

}  // namespace
}  // namespace weft
