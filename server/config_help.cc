#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/config_flags.h"

namespace weft {
namespace {

constexpr size_t kLineWidth = 80;

constexpr absl::string_view kIntroduction = R"(NAME
       weft serve - serve a language model over HTTP and gRPC

SYNOPSIS
       weft serve [MODEL] [--name VALUE | --name=VALUE]...

DESCRIPTION
       Loads the model directory MODEL and serves it: the OpenAI API over HTTP,
       weft.v1.Inference over gRPC. Prints one line on standard output when it
       is ready:

           weft ready http=127.0.0.1:8000 grpc=127.0.0.1:9000

       Logs go to standard error and never hold prompts or completions.

       Every setting can be a flag, an environment variable or a line
       "name = value" of a TOML or INI file. A flag wins over the variable, the
       variable over the file. A setting that does not exist, or that
       contradicts another, refuses to start.

)";

constexpr absl::string_view kEnd = R"(
FILE
       --config FILE
           Read settings from this file.
           WEFT_CONFIG

SIGNALS
       SIGTERM, SIGINT
           Take no new work (503, with Retry-After), finish what was accepted,
           exit. A second one: exit now.
       SIGHUP
           Read the files of api-keys and tenants anew. One that is not valid
           changes nothing, and is logged.

EXIT STATUS
       0   stopped by a signal
       1   stopped by a signal, after every replica had died too often
       78  the settings or the model directory can't be served; the last line
           of standard error says which and why
)";

std::string Wrapped(absl::string_view text, absl::string_view indent) {
  std::string out;
  std::string line(indent);
  for (absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    if (line.size() > indent.size() && line.size() + 1 + word.size() > kLineWidth) {
      absl::StrAppend(&out, line, "\n");
      line = std::string(indent);
    }
    absl::StrAppend(&line, line.size() > indent.size() ? " " : "", word);
  }
  return absl::StrCat(out, line, "\n");
}

std::string Describe(const ConfigSetting& setting) {
  Config defaults;
  const SettingRef ref = setting.ref(defaults);
  const std::string syntax = SettingSyntax(ref);
  const std::string value = WriteSetting(ref);
  std::string out = absl::StrCat("       --", setting.name, syntax.empty() ? "" : " ", syntax, "\n");
  absl::StrAppend(&out, Wrapped(setting.help, "           "));
  absl::StrAppend(&out, "           ", EnvironmentName(setting.name));
  if (!value.empty()) absl::StrAppend(&out, ", default: ", value);
  return absl::StrCat(out, "\n\n");
}

}  // namespace

std::string ServeHelp() {
  std::string out(kIntroduction);
  absl::string_view group;
  for (const ConfigSetting& setting : ConfigSettings()) {
    if (setting.group != group) absl::StrAppend(&out, absl::AsciiStrToUpper(setting.group), "\n");
    group = setting.group;
    absl::StrAppend(&out, Describe(setting));
  }
  out.pop_back();  // the blank line after the last setting; the next section begins with one
  absl::StrAppend(&out, kEnd);
  return out;
}

}  // namespace weft
