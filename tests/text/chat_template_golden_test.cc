// Every template and expression of tests/fixtures/templates renders as Jinja2 renders it, and fails where Jinja2 fails.
#include <gtest/gtest.h>

#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/text/chat_template.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;

std::string ReadFixture(const std::string& name) {
  std::ifstream file(absl::StrCat(WEFT_SOURCE_DIR, "/tests/fixtures/templates/", name), std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

const Json& Golden() {
  static const auto* golden = new Json(Json::parse(ReadFixture("golden.json")));
  return *golden;
}

struct Outcome {
  std::optional<std::string> text;  // nullopt: an error
  std::string error;
};

Outcome Render(const std::string& source, const Json& inputs) {
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source, Golden()["bos_token"], Golden()["eos_token"]);
  if (!parsed.ok()) return {std::nullopt, parsed.status().ToString()};
  absl::StatusOr<std::vector<TextSegment>> segments =
      parsed->Render(inputs, absl::FromUnixSeconds(Golden()["now"].get<int64_t>()));
  if (!segments.ok()) return {std::nullopt, segments.status().ToString()};
  std::string text;
  for (const TextSegment& segment : *segments) text += segment.text;
  return {text, ""};
}

void ExpectGolden(const std::string& what, const Outcome& outcome, const Json& expected) {
  if (expected.is_null()) {
    EXPECT_FALSE(outcome.text.has_value()) << what << "\nrendered: " << outcome.text.value_or("");
  } else if (!outcome.text) {
    ADD_FAILURE() << what << "\nfailed: " << outcome.error << "\nexpected: " << expected.get<std::string>();
  } else {
    EXPECT_EQ(*outcome.text, expected.get<std::string>()) << what;
  }
}

TEST(ChatTemplateGoldenTest, RendersSmallTemplatesAsJinja) {
  ASSERT_GE(Golden()["small"].size(), 300u);
  for (const Json& test : Golden()["small"]) {
    std::string source = test["source"];
    ExpectGolden(source, Render(source, Golden()["data"]), test["output"]);
  }
}

TEST(ChatTemplateGoldenTest, RendersModelTemplatesAsJinja) {
  ASSERT_GE(Golden()["templates"].size(), 15u);
  for (const auto& [name, results] : Golden()["templates"].items()) {
    std::string source = ReadFixture(absl::StrCat(name, ".jinja"));
    ASSERT_GE(results.size(), 12u);
    for (const auto& [title, expected] : results.items()) {
      ExpectGolden(absl::StrCat(name, ", ", title), Render(source, Golden()["conversations"][title]), expected);
    }
  }
}

}  // namespace
}  // namespace weft
