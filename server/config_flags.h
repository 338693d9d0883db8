// How operators set a Config: flags before WEFT_* environment variables before a file. One table of settings drives all
// three and the help.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/config.h"
#include "server/setting.h"

namespace weft {

// One row of the table: --name, WEFT_NAME and `name = ...` in a file.
struct ConfigSetting {
  absl::string_view group;
  absl::string_view name;
  absl::string_view help;
  SettingRef (*ref)(Config& config);
};

absl::Span<const ConfigSetting> ConfigSettings();

// "WEFT_MAX_NUM_SEQS" for "max-num-seqs".
std::string EnvironmentName(absl::string_view setting);

// `args`: what follows `weft serve`. `environment`: "NAME=value", as of environ; only WEFT_* are looked at. Reads the
// file that `config` names, if any, and validates. Errors: InvalidArgument in one line that names the setting, where it
// was set, and the nearest name that exists if there is none of this one.
absl::StatusOr<Config> ParseConfig(const std::vector<std::string>& args, const std::vector<std::string>& environment);

// The manual page of `weft serve`.
std::string ServeHelp();

}  // namespace weft
