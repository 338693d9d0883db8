// What the golden files can't show: who wrote each byte, what is refused, and that every render ends.
#include "server/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string Repeat(const std::string& text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

absl::StatusOr<std::vector<TextSegment>> Render(const std::string& source, const Json& inputs,
                                                const TemplateLimits& limits = {}) {
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse(source, "<s>", "</s>", limits);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render(inputs, absl::UnixEpoch());
}

// The segments on one line: trusted text in [], the rest in ().
std::string Origins(const std::string& source, const Json& inputs) {
  absl::StatusOr<std::vector<TextSegment>> segments = Render(source, inputs);
  if (!segments.ok()) return std::string(segments.status().message());
  std::string line;
  for (const TextSegment& s : *segments) absl::StrAppend(&line, s.trusted ? "[" : "(", s.text, s.trusted ? "]" : ")");
  return line;
}

std::string Error(const std::string& source, const Json& inputs = Json::object()) {
  return std::string(Render(source, inputs).status().message());
}

TEST(ChatTemplateTest, TellsWhoWroteEachByte) {
  struct Case {
    std::string source;
    std::string expected;
  };
  const std::vector<Case> cases = {
      {"a{{ x }}b", "[a](Hi <s>)[b]"},
      {"{{ bos_token ~ x ~ eos_token }}", "[<s>](Hi <s>)[</s>]"},
      {"{{ '<|' + 'im' + '|>' }}", "[<|im|>]"},
      {"{{ ('<a>' + x + '<b>')[1:-2] }}", "[a>](Hi <s>)[<]"},
      {"{{ ('<a>' + x)[::-1] }}", "(>s< iH)[>a<]"},
      {"{{ (' <a>' + x + ' ') | trim }}", "[<a>](Hi <s>)"},
      {"{{ x.replace('Hi', 'Ho') }}", "[Ho]( <s>)"},
      {"{{ 'a-b' | replace('-', x) }}", "[a](Hi <s>)[b]"},
      {"{{ ('p,' + x + ',q').split(',') | join(';') }}", "[p;](Hi <s>)[;q]"},
      {"{{ [x, 'z'] | join('<s>') }}", "(Hi <s>)[<s>z]"},
      {"{{ ('a' ~ x) | upper }}", "[A](HI <S>)"},
      {"{{ [x, '<s>'] | tojson }}", "([\"Hi <s>\", \")[<s>](\"])"},
      {"{{ [x] }}", "(['Hi <s>'])"},
      {"{% set y %}<{{ x }}>{% endset %}{{ y }}", "[<](Hi <s>)[>]"},
      {"{% macro m(v) %}<{{ v }}>{% endmacro %}{{ m(x) }}", "[<](Hi <s>)[>]"},
      {"{% filter upper %}a{{ x }}{% endfilter %}", "[A](HI <S>)"},
      {"{% for c in x %}{{ c if c == '<' }}{% endfor %}", "(<)"},
      {"{{ x if x == 'Hi <s>' }}", "(Hi <s>)"},
      {"{{ missing | default(x) }}{{ missing | default('d') }}", "(Hi <s>)[d]"},
      {"{{ '<s>' | indent(2, true) }}", "(  )[<s>]"},
      {"{{ messages[0].role }}{{ messages[0].content }}", "[user](Hello)"},
      {"{{ '<|' + messages[1].role + '|>' }}", "[<|](</s>)[|>]"},
      {"{{ other[0].role }}", "(user)"},
      {"{{ strftime_now('%Y') }}{{ 1 }}", "(19701)"},
  };
  const Json inputs = {
      {"x", "Hi <s>"},
      {"messages",
       Json::array({{{"role", "user"}, {"content", "Hello"}}, {{"role", "</s>"}, {"content", "assistant"}}})},
      {"other", Json::array({{{"role", "user"}}})},
  };
  for (const Case& test : cases) EXPECT_EQ(Origins(test.source, inputs), test.expected) << test.source;
}

TEST(ChatTemplateTest, InputsCannotReplaceTheSpecialTokens) {
  EXPECT_EQ(Origins("{{ bos_token }}{{ eos_token }}", {{"bos_token", "x"}, {"eos_token", "y"}}), "[<s></s>]");
}

TEST(ChatTemplateTest, KeepsTokensThatTheModelLacksUndefined) {
  absl::StatusOr<ChatTemplate> parsed = ChatTemplate::Parse("{{ bos_token is defined }}{{ bos_token }}", "", "");
  ASSERT_TRUE(parsed.ok());
  absl::StatusOr<std::vector<TextSegment>> segments = parsed->Render(Json::object(), absl::UnixEpoch());
  ASSERT_TRUE(segments.ok());
  ASSERT_EQ(segments->size(), 1u);
  EXPECT_EQ(segments->front().text, "False");
}

// Table X of the failure catalogue.
TEST(ChatTemplateTest, RefusesAtLoad) {
  struct Case {
    std::string source;
    std::string code;
  };
  const std::vector<Case> cases = {
      {"{{ 1 + }}", "template_invalid: line 1"},
      {"a\n\n{% if x %}", "template_invalid: line 3"},
      {"\n{{ 'open }}", "template_invalid: line 2"},
      {std::string(1 << 20, 'x'), "template_invalid"},
      {"{% include 'x' %}", "template_invalid"},
      {"{% import 'x' as y %}", "template_invalid"},
      {"{% from 'x' import y %}", "template_invalid"},
      {"{% extends 'x' %}", "template_invalid"},
      {"{{ x | attr('format') }}", "template_unsupported: line 1"},
      {"\n\n{{ x | nope }}", "template_unsupported: line 3"},
      {"{{ x is nope }}", "template_unsupported"},
      {"{{ nope(x) }}", "template_unsupported"},
      {"{{ cycler('a') }}", "template_unsupported"},
      {"{{ lipsum() }}", "template_unsupported"},
      {"{{ x.format(1) }}", "template_unsupported"},
      {"{{ xs.append(1) }}", "template_unsupported"},
      {"{{ ''.__class__.mro() }}", "template_unsupported"},
      {"{{ f(*xs) }}", "template_unsupported"},
      {"{% for x in xs recursive %}{% endfor %}", "template_unsupported"},
      {"{% for x in xs %}{{ loop(x) }}{% endfor %}", "template_unsupported"},
      {"{% macro m() %}{{ caller() }}{% endmacro %}", "template_unsupported"},
      {"{% block b %}{% endblock %}", "template_unsupported"},
  };
  for (const Case& test : cases) {
    EXPECT_THAT(std::string(ChatTemplate::Parse(test.source, "", "").status().message()), StartsWith(test.code))
        << test.source.substr(0, 80);
  }
}

TEST(ChatTemplateTest, RefusesDeepNesting) {
  constexpr int kDepth = 10000;
  const std::vector<std::string> sources = {
      absl::StrCat("{{ ", Repeat("(", kDepth), "1", Repeat(")", kDepth), " }}"),
      absl::StrCat("{{ ", Repeat("[", kDepth), Repeat("]", kDepth), " }}"),
      absl::StrCat("{{ ", Repeat("{1:", kDepth), "1", Repeat("}", kDepth), " }}"),
      absl::StrCat("{{ ", Repeat("not ", kDepth), "1 }}"),
      absl::StrCat("{{ ", Repeat("-", kDepth), "1 }}"),
      absl::StrCat("{{ ", Repeat("f(", kDepth), "1", Repeat(")", kDepth), " }}"),
      absl::StrCat("{{ x", Repeat("[x", kDepth), Repeat("]", kDepth), " }}"),
      absl::StrCat("{{ x", Repeat(".a", kDepth), " }}"),
      absl::StrCat("{{ x", Repeat("[0]", kDepth), " }}"),
      absl::StrCat("{{ x", Repeat("|trim", kDepth), " }}"),
      absl::StrCat("{{ x", Repeat(" is not none", kDepth), " }}"),
      absl::StrCat("{{ 1", Repeat(" if 1 else 2", kDepth), " }}"),
      absl::StrCat("{{ 1", Repeat(" if 1", kDepth), " }}"),
      absl::StrCat("{{ x is in ", Repeat("[", kDepth), Repeat("]", kDepth), " }}"),
      absl::StrCat("{% set ", Repeat("(", kDepth), "a", Repeat(")", kDepth), " = 1 %}"),
      absl::StrCat("{% set x", Repeat("|trim", kDepth), " %}{% endset %}"),
      absl::StrCat(Repeat("{% if 1 %}", kDepth), Repeat("{% endif %}", kDepth)),
      absl::StrCat(Repeat("{% for x in y %}", kDepth), Repeat("{% endfor %}", kDepth)),
      absl::StrCat(Repeat("{% macro m() %}", kDepth), Repeat("{% endmacro %}", kDepth)),
  };
  for (const std::string& source : sources) {
    EXPECT_THAT(Error(source), StartsWith("template_invalid")) << source.substr(0, 60);
  }
}

TEST(ChatTemplateTest, AllowsLongChains) {
  constexpr int kLength = 1000;
  EXPECT_EQ(Origins(absl::StrCat("{{ 0", Repeat(" + 1", kLength), " }}"), Json::object()), "(1000)");
  EXPECT_EQ(Origins(absl::StrCat("{{ 1", Repeat(" and 1", kLength), " }}"), Json::object()), "(1)");
  EXPECT_EQ(Origins(absl::StrCat("{{ ''", Repeat(" ~ 'a'", kLength), "}}"), Json::object()),
            absl::StrCat("[", Repeat("a", kLength), "]"));
  std::string many = "{% if x == 0 %}";
  for (int i = 1; i < kLength; ++i) absl::StrAppend(&many, "{% elif x == ", i, " %}", i);
  EXPECT_EQ(Origins(many + "{% endif %}", {{"x", 999}}), "[999]");
}

TEST(ChatTemplateTest, EndsEveryRender) {
  const Json inputs = {{"x", std::string(100'000, 'a')}, {"messages", Json::array({{{"content", "b"}}})}};
  const std::vector<std::string> sources = {
      "{% for i in range(10**9) %}{% endfor %}",
      "{% for i in range(50000) %}{% for j in range(50000) %}{% endfor %}{% endfor %}",
      "{% for i in range(10000) %}{% for j in range(10000) %}{{ i }}{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
      "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
      absl::StrCat("{% set x = 'a' %}", Repeat("{% set x = x ~ x %}", 64), "{{ x }}"),
      absl::StrCat("{% set x = [1] %}", Repeat("{% set x = x + x %}", 64), "{{ x | length }}"),
      absl::StrCat("{% set x = 'a' %}", Repeat("{% set x = x.replace('a', 'aa') %}", 64), "{{ x }}"),
      absl::StrCat("{% set x = 'a' %}", Repeat("{% set x = [x, x] | join %}", 64), "{{ x }}"),
      absl::StrCat("{% set x = ['a'] %}", Repeat("{% set x = [x, x] %}", 40), "{{ x }}"),
      absl::StrCat("{% set x = ['a'] %}", Repeat("{% set x = [x, x] %}", 40), "{{ x | tojson }}"),
      absl::StrCat("{% set x = ['a'] %}{% set y = ['a'] %}", Repeat("{% set x = [x, x] %}{% set y = [y, y] %}", 40),
                   "{{ x == y }}"),
      "{{ 'a' * 10**12 }}",
      "{{ [1] * 10**12 }}",
      "{{ 'a\n' * 1000 | indent(10**9) }}",
      "{{ 'a' | indent(10**12, true) }}",
      "{{ [[1]] | tojson(indent=10**9) }}",
      "{{ [1] | batch(10**12, 0) | list }}",
      "{% for i in range(100000) %}{{ x }}{% endfor %}",
      "{% for i in range(100000) %}{% set y = x.upper() %}{% endfor %}",
      "{% for i in range(100000) %}{% if x ~ 'b' == x ~ 'c' %}{% endif %}{% endfor %}",
      "{% for i in range(100000) %}{% if 'ab' in x %}{% endif %}{% endfor %}",
      "{% for i in range(100000) %}{% set y = x[-1] %}{% endfor %}",
      "{% for i in range(100000) %}{% set y = x.split('a') %}{% endfor %}",
      "{% for i in range(100000) %}{% set y = x | length %}{% endfor %}",
      "{% set ns = namespace(v=[]) %}{% for i in range(1000) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v }}",
      "{% set ns = namespace(v={}) %}{% for i in range(1000) %}{% set ns.v = {'a': ns.v} %}{% endfor %}{{ ns.v }}",
  };
  for (const std::string& source : sources) {
    absl::Status status = Render(source, inputs).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << source.substr(0, 80) << status;
    EXPECT_THAT(std::string(status.message()), StartsWith("template_budget")) << source.substr(0, 80);
  }
}

TEST(ChatTemplateTest, LimitsOutputByTheInput) {
  TemplateLimits limits;
  limits.output_base_bytes = 10;
  const std::string source = "{% for i in range(n) %}{{ x }}{% endfor %}";
  EXPECT_TRUE(Render(source, {{"x", std::string(100, 'a')}, {"n", 4}}, limits).ok());
  EXPECT_FALSE(Render(source, {{"x", std::string(100, 'a')}, {"n", 5}}, limits).ok());
}

TEST(ChatTemplateTest, FreesValuesThatLeadBackToThemselves) {
  // Leak checkers judge this one.
  EXPECT_EQ(Origins("{% macro m() %}x{% endmacro %}{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.m = m %}"
                    "{% set ns.list = [ns] %}{{ m() }}",
                    Json::object()),
            "[x]");
}

TEST(ChatTemplateTest, CannotReachTheHost) {
  EXPECT_EQ(Origins("{{ ''.__class__ }}{{ [].__init__ }}{{ range.__globals__ }}", Json::object()), "");
  for (const char* source : {"{{ ''.__class__.__mro__ }}", "{{ cycler.__init__ }}", "{{ ''['__class__']['__mro__'] }}",
                             "{{ namespace.__init__.__globals__ }}", "{{ x['__class__'].y }}"}) {
    EXPECT_THAT(Error(source, {{"x", {{"a", 1}}}}), StartsWith("template_failed: line 1")) << source;
  }
}

TEST(ChatTemplateTest, SaysRejectedInFixedWords) {
  absl::Status status = Render("{{ raise_exception('secret ' ~ x) }}", {{"x", "prompt"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith("template_rejected"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("secret")));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("prompt")));
}

TEST(ChatTemplateTest, NamesTheLineThatFailed) {
  EXPECT_THAT(Error("a\n{% set x = 1 %}\n{{ x }}\n{{ x + 'a' }}"), StartsWith("template_failed: line 4"));
}

TEST(ChatTemplateTest, RefusesDeepInputs) {
  Json deep = 1;
  for (int i = 0; i < 100; ++i) deep = Json::array({std::move(deep)});
  EXPECT_THAT(Error("{{ tools | tojson }}", {{"tools", deep}}), StartsWith("template_budget"));
}

TEST(ChatTemplateTest, RendersTemplateCodeInContentLiterally) {
  EXPECT_EQ(Origins("{{ x }}", {{"x", "{{ 7*7 }}{% if %}"}}), "({{ 7*7 }}{% if %})");
}

TEST(ChatTemplateTest, MayRenderNothing) {
  EXPECT_EQ(Origins("{% for m in messages %}{% endfor %}", {{"messages", Json::array()}}), "");
}

}  // namespace
}  // namespace weft
