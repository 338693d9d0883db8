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

// What one source says: setting -> its values.
using Values = std::map<std::string, std::vector<std::string>, std::less<>>;

const ConfigSetting* FindSetting(absl::string_view name) {
  const auto* found = std::find_if(ConfigSettings().begin(), ConfigSettings().end(),
                                   [name](const ConfigSetting& setting) { return setting.name == name; });
  return found == ConfigSettings().end() ? nullptr : found;
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
  for (const ConfigSetting& setting : ConfigSettings()) names.push_back(write(setting.name));
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
  for (const ConfigSetting& setting : ConfigSettings()) {
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
  for (const ConfigSetting& setting : ConfigSettings()) {
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
