// One value that an operator may set: how it is written and read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "engine/weight_options.h"
#include "kernels/device.h"
#include "kernels/dtype.h"
#include "server/prefix_cache.h"
#include "server/worker_options.h"

namespace weft {

// The kinds. Each borrows the place in a Config that it fills.

struct TextSetting {
  std::string* value;
  absl::string_view syntax;  // what it is, for help: "FILE"
};

// Words; several may follow one flag.
struct ListSetting {
  std::vector<std::string>* value;
  absl::string_view syntax;
};

struct SwitchSetting {
  bool* value;
};

// A whole number. `auto_is_zero`: 0 means that the server decides, and is written "auto".
struct NumberSetting {
  std::variant<int*, int64_t*> value;
  int64_t least = 1;
  int64_t most = INT32_MAX;
  bool auto_is_zero = false;
};

// A part of a whole, or any other number with a point: "0.5".
struct FractionSetting {
  double* value;
  double least = 0;
  double most = 1;
};

// Bytes, written with a unit: "512KiB", "2GiB". At least 1.
struct BytesSetting {
  std::variant<int*, int64_t*> value;
  bool auto_is_zero = false;
};

// Written with a unit: "500ms", "90s", "2m".
struct DurationSetting {
  absl::Duration* value;
  bool may_be_zero = false;
};

// One of a few words.
template <typename T>
struct WordSetting {
  T* value;
  absl::Span<const std::pair<absl::string_view, T>> words;
};

using SettingRef = std::variant<TextSetting, ListSetting, SwitchSetting, NumberSetting, FractionSetting, BytesSetting,
                                DurationSetting, WordSetting<std::string>, WordSetting<LoadFormat>,
                                WordSetting<PrefixCache>, WordSetting<std::optional<WorkerKind>>,
                                WordSetting<std::optional<DType>>, WordSetting<std::optional<DeviceKind>>>;

// Reads `texts` (one, but for a list) into the setting. The message says what is wrong and what would be right, without
// the setting's name. What was there stays on error.
absl::Status ReadSetting(const SettingRef& setting, absl::Span<const std::string> texts);

// As it would be written; empty when nothing is set.
std::string WriteSetting(const SettingRef& setting);

// What may be written, for help: "SIZE", "NAME...", "auto|f32|bf16".
std::string SettingSyntax(const SettingRef& setting);

}  // namespace weft
