#include "server/setting.h"

#include <array>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace weft {
namespace {

template <class... Ts>
struct Overload : Ts... {
  using Ts::operator()...;
};
template <class... Ts>
Overload(Ts...) -> Overload<Ts...>;

constexpr absl::string_view kAuto = "auto";

struct Unit {
  absl::string_view name;
  int64_t bytes;
};
constexpr std::array<Unit, 5> kUnits = {{{"TiB", int64_t{1} << 40},
                                         {"GiB", int64_t{1} << 30},
                                         {"MiB", int64_t{1} << 20},
                                         {"KiB", int64_t{1} << 10},
                                         {"B", 1}}};  // the longer names first: "B" ends them all

absl::Status Wrong(absl::string_view text, absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not ", expected));
}

// Assigns where the target holds the value.
bool Store(const std::variant<int*, int64_t*>& target, int64_t value) {
  if (int* const* narrow = std::get_if<int*>(&target)) {
    if (value > std::numeric_limits<int>::max() || value < std::numeric_limits<int>::min()) return false;
    **narrow = static_cast<int>(value);
    return true;
  }
  *std::get<int64_t*>(target) = value;
  return true;
}

int64_t Load(const std::variant<int*, int64_t*>& source) {
  return std::visit([](const auto* value) { return static_cast<int64_t>(*value); }, source);
}

absl::Status ReadNumber(const NumberSetting& setting, const std::string& text) {
  if (setting.auto_is_zero && text == kAuto) {
    Store(setting.value, 0);
    return absl::OkStatus();
  }
  int64_t number = 0;
  if (!absl::SimpleAtoi(text, &number) || number < setting.least || number > setting.most) {
    return Wrong(text, absl::StrCat("a whole number from ", setting.least, " to ", setting.most,
                                    setting.auto_is_zero ? " or 'auto'" : ""));
  }
  Store(setting.value, number);
  return absl::OkStatus();
}

absl::Status ReadFraction(const FractionSetting& setting, const std::string& text) {
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !(number >= setting.least && number <= setting.most)) {
    return Wrong(text, absl::StrCat("a number from ", setting.least, " to ", setting.most));
  }
  *setting.value = number;
  return absl::OkStatus();
}

absl::Status ReadBytes(const BytesSetting& setting, const std::string& text) {
  if (setting.auto_is_zero && text == kAuto) {
    Store(setting.value, 0);
    return absl::OkStatus();
  }
  for (const Unit& unit : kUnits) {
    absl::string_view digits = text;
    if (!absl::ConsumeSuffix(&digits, unit.name)) continue;
    int64_t count = 0;
    int64_t bytes = 0;
    if (!absl::SimpleAtoi(digits, &count) || count < 1 || __builtin_mul_overflow(count, unit.bytes, &bytes)) break;
    if (Store(setting.value, bytes)) return absl::OkStatus();
    break;
  }
  return Wrong(text, "a size with its unit, such as 512MiB or 2GiB");
}

absl::Status ReadDuration(const DurationSetting& setting, const std::string& text) {
  absl::Duration duration;
  const bool parsed = absl::ParseDuration(text, &duration) && duration != absl::InfiniteDuration();
  if (!parsed || duration < absl::ZeroDuration() || (duration == absl::ZeroDuration() && !setting.may_be_zero)) {
    return Wrong(text, "a time with its unit, such as 500ms, 90s or 2m");
  }
  *setting.value = duration;
  return absl::OkStatus();
}

absl::Status ReadSwitch(const SwitchSetting& setting, const std::string& text) {
  if (text != "true" && text != "false") return Wrong(text, "true or false");
  *setting.value = text == "true";
  return absl::OkStatus();
}

template <typename T>
std::string JoinWords(const WordSetting<T>& setting, absl::string_view separator) {
  return absl::StrJoin(setting.words, separator,
                       [](std::string* out, const auto& word) { absl::StrAppend(out, word.first); });
}

template <typename T>
absl::Status ReadWord(const WordSetting<T>& setting, const std::string& text) {
  for (const auto& [word, value] : setting.words) {
    if (word != text) continue;
    *setting.value = value;
    return absl::OkStatus();
  }
  return Wrong(text, absl::StrCat("one of ", JoinWords(setting, ", ")));
}

std::string WriteBytes(int64_t bytes) {
  for (const Unit& unit : kUnits) {
    if (bytes % unit.bytes == 0) return absl::StrCat(bytes / unit.bytes, unit.name);
  }
  return "";
}

// "90s" where Abseil says "1m30s".
std::string WriteDuration(absl::Duration duration) {
  const bool whole_seconds = duration % absl::Seconds(1) == absl::ZeroDuration();
  return whole_seconds ? absl::StrCat(absl::ToInt64Seconds(duration), "s") : absl::FormatDuration(duration);
}

template <typename T>
std::string WriteWord(const WordSetting<T>& setting) {
  for (const auto& [word, value] : setting.words) {
    if (value == *setting.value) return std::string(word);
  }
  return "";
}

}  // namespace

absl::Status ReadSetting(const SettingRef& setting, absl::Span<const std::string> texts) {
  if (const auto* list = std::get_if<ListSetting>(&setting)) {
    *list->value = std::vector<std::string>(texts.begin(), texts.end());
    return absl::OkStatus();
  }
  if (texts.size() != 1) return absl::InvalidArgumentError("takes one value, once");
  const std::string& text = texts.front();
  return std::visit(Overload{
                        [&](const TextSetting& s) {
                          *s.value = text;
                          return absl::OkStatus();
                        },
                        [&](const ListSetting&) { return absl::OkStatus(); },
                        [&](const SwitchSetting& s) { return ReadSwitch(s, text); },
                        [&](const NumberSetting& s) { return ReadNumber(s, text); },
                        [&](const FractionSetting& s) { return ReadFraction(s, text); },
                        [&](const BytesSetting& s) { return ReadBytes(s, text); },
                        [&](const DurationSetting& s) { return ReadDuration(s, text); },
                        [&](const auto& s) { return ReadWord(s, text); },
                    },
                    setting);
}

std::string WriteSetting(const SettingRef& setting) {
  return std::visit(Overload{
                        [](const TextSetting& s) { return *s.value; },
                        [](const ListSetting& s) { return absl::StrJoin(*s.value, " "); },
                        [](const SwitchSetting& s) { return std::string(*s.value ? "true" : "false"); },
                        [](const NumberSetting& s) {
                          return s.auto_is_zero && Load(s.value) == 0 ? std::string(kAuto)
                                                                      : absl::StrCat(Load(s.value));
                        },
                        [](const FractionSetting& s) { return absl::StrCat(*s.value); },
                        [](const BytesSetting& s) {
                          return s.auto_is_zero && Load(s.value) == 0 ? std::string(kAuto) : WriteBytes(Load(s.value));
                        },
                        [](const DurationSetting& s) { return WriteDuration(*s.value); },
                        [](const auto& s) { return WriteWord(s); },
                    },
                    setting);
}

std::string SettingSyntax(const SettingRef& setting) {
  return std::visit(Overload{
                        [](const TextSetting& s) { return std::string(s.syntax); },
                        [](const ListSetting& s) { return absl::StrCat(s.syntax, "..."); },
                        [](const SwitchSetting&) { return std::string(); },
                        [](const NumberSetting&) { return std::string("N"); },
                        [](const FractionSetting&) { return std::string("X"); },
                        [](const BytesSetting&) { return std::string("SIZE"); },
                        [](const DurationSetting&) { return std::string("TIME"); },
                        [](const auto& s) { return JoinWords(s, "|"); },
                    },
                    setting);
}

}  // namespace weft
