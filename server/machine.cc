#include "server/machine.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace weft {
namespace {

// cgroup v1 says "no limit" with the largest multiple of a page; nobody means a number this large.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return std::string(absl::StripAsciiWhitespace(text.str()));
}

std::optional<int64_t> FirstNumber(absl::string_view text) {
  const std::vector<absl::string_view> words = absl::StrSplit(text, absl::ByAnyChar(" \t"), absl::SkipEmpty());
  int64_t number = 0;
  if (words.empty() || !absl::SimpleAtoi(words[0], &number)) return std::nullopt;
  return number;
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadFile(path);
  return text ? FirstNumber(*text) : std::nullopt;
}

// The value of the first line "key: value" of a /proc file.
std::optional<std::string> Field(absl::string_view text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(parts.first) == key) return std::string(absl::StripAsciiWhitespace(parts.second));
  }
  return std::nullopt;
}

std::optional<int64_t> FieldBytes(absl::string_view text, absl::string_view key) {
  const std::optional<int64_t> kib = FirstNumber(Field(text, key).value_or(""));
  return kib ? std::optional<int64_t>(*kib * 1024) : std::nullopt;
}

// Names in a folder; none where there is no such folder.
std::vector<std::string> NamesIn(const std::string& path) {
  std::vector<std::string> names;
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator(path, absent)) names.push_back(entry.path().filename());
  return names;
}

// "0-3,8" holds five numbers.
int64_t CountInRanges(absl::string_view ranges) {
  int64_t count = 0;
  for (absl::string_view range : absl::StrSplit(ranges, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> ends = absl::StrSplit(range, absl::MaxSplits('-', 1));
    const std::optional<int64_t> first = FirstNumber(ends.first);
    const std::optional<int64_t> last = ends.second.empty() ? first : FirstNumber(ends.second);
    if (first && last) count += *last - *first + 1;
  }
  return count;
}

// The folders that can limit this process through a cgroup controller: its own and each above it, in version 2's tree
// and in version 1's. In a container the path may be one that exists on the host alone; the limit then stands at the
// root, where the walk ends.
std::vector<std::string> GroupFolders(const std::string& root, absl::string_view controller) {
  std::vector<std::string> folders;
  const std::string groups = ReadFile(root + "/proc/self/cgroup").value_or("");
  for (absl::string_view line : absl::StrSplit(groups, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));  // number:controllers:path
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool version_1 = std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
    if (!version_1 && !parts[1].empty()) continue;
    const std::filesystem::path tree = absl::StrCat(root, "/sys/fs/cgroup/", version_1 ? controller : "");
    for (std::filesystem::path path = parts[2]; path.has_relative_path(); path = path.parent_path()) {
      folders.push_back(tree / path.relative_path());
    }
    folders.push_back(tree);
  }
  return folders;
}

std::optional<int64_t> GroupMemoryLimit(const std::string& root) {
  std::optional<int64_t> lowest;
  for (const std::string& folder : GroupFolders(root, "memory")) {
    for (absl::string_view file : {"/memory.max", "/memory.limit_in_bytes"}) {  // version 2's, version 1's
      const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, file));
      if (limit && *limit < kNoLimit) lowest = std::min(lowest.value_or(*limit), *limit);
    }
  }
  return lowest;
}

std::optional<double> GroupCpuQuota(const std::string& root) {
  std::optional<double> lowest;
  for (const std::string& folder : GroupFolders(root, "cpu")) {
    std::optional<int64_t> quota = ReadNumber(folder + "/cpu.cfs_quota_us");
    std::optional<int64_t> period = ReadNumber(folder + "/cpu.cfs_period_us");
    if (const std::optional<std::string> both = ReadFile(folder + "/cpu.max")) {  // "150000 100000" or "max 100000"
      const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(*both, absl::MaxSplits(' ', 1));
      quota = FirstNumber(parts.first);
      period = FirstNumber(parts.second);
    }
    if (!quota || !period || *quota <= 0 || *period <= 0) continue;
    const double cores = static_cast<double>(*quota) / static_cast<double>(*period);
    lowest = std::min(lowest.value_or(cores), cores);
  }
  return lowest;
}

// NVIDIA is PCI vendor 0x10de; display controllers are class 0x03xxxx.
int64_t CountNvidiaCards(const std::string& root) {
  const std::string bus = root + "/sys/bus/pci/devices/";
  const std::vector<std::string> devices = NamesIn(bus);
  return std::count_if(devices.begin(), devices.end(), [&bus](const std::string& device) {
    return ReadFile(bus + device + "/vendor") == "0x10de" &&
           absl::StartsWith(ReadFile(bus + device + "/class").value_or(""), "0x03");
  });
}

// /dev/nvidia0, /dev/nvidia1, ...; nvidiactl and the like are not devices.
int64_t CountNvidiaDevices(const std::string& root) {
  const std::vector<std::string> names = NamesIn(root + "/dev");
  return std::count_if(names.begin(), names.end(), [](absl::string_view name) {
    int64_t number = 0;
    return absl::ConsumePrefix(&name, "nvidia") && absl::SimpleAtoi(name, &number);
  });
}

std::optional<std::string> NvidiaDriver(const std::string& root) {
  const std::optional<std::string> version = ReadFile(root + "/proc/driver/nvidia/version");
  return version ? Field(*version, "NVRM version") : std::nullopt;
}

std::optional<int64_t> FilesystemBytes(const std::string& path) {
  struct statvfs filesystem = {};
  if (statvfs(path.c_str(), &filesystem) != 0) return std::nullopt;
  return static_cast<int64_t>(filesystem.f_blocks) * static_cast<int64_t>(filesystem.f_frsize);
}

std::optional<int64_t> MaxOpenFiles(const std::string& root) {
  const std::string limits = ReadFile(root + "/proc/self/limits").value_or("");
  for (absl::string_view line : absl::StrSplit(limits, '\n')) {
    if (absl::ConsumePrefix(&line, "Max open files")) return FirstNumber(line);  // the soft limit comes first
  }
  return std::nullopt;
}

std::optional<std::string> HugePages(const std::string& root) {
  const std::optional<std::string> modes = ReadFile(root + "/sys/kernel/mm/transparent_hugepage/enabled");
  if (!modes) return std::nullopt;
  for (absl::string_view mode : absl::StrSplit(*modes, ' ')) {  // "always [madvise] never"
    if (absl::ConsumePrefix(&mode, "[") && absl::ConsumeSuffix(&mode, "]")) return std::string(mode);
  }
  return std::nullopt;
}

}  // namespace

Machine InspectMachine(const std::string& root) {
  const std::string cpu = ReadFile(root + "/proc/cpuinfo").value_or("");
  const std::string memory = ReadFile(root + "/proc/meminfo").value_or("");
  const std::string process = ReadFile(root + "/proc/self/status").value_or("");

  Machine machine;
  machine.cpu_model = Field(cpu, "model name").value_or("unnamed");
  machine.cpu_features = absl::StrSplit(Field(cpu, "flags").value_or(""), ' ', absl::SkipEmpty());
  machine.num_cores = CountInRanges(Field(process, "Cpus_allowed_list").value_or(""));
  machine.cpu_quota = GroupCpuQuota(root);
  machine.memory_bytes = FieldBytes(memory, "MemTotal");
  machine.available_memory_bytes = FieldBytes(memory, "MemAvailable");
  machine.memory_limit_bytes = GroupMemoryLimit(root);
  machine.num_nvidia_cards = CountNvidiaCards(root);
  machine.num_nvidia_devices = CountNvidiaDevices(root);
  machine.nvidia_driver = NvidiaDriver(root);
  machine.shm_bytes = FilesystemBytes(root + "/dev/shm");
  machine.max_open_files = MaxOpenFiles(root);
  machine.huge_pages = HugePages(root);
  machine.clock = ReadFile(root + "/sys/devices/system/clocksource/clocksource0/current_clocksource");
  return machine;
}

int64_t UsableMemory() {
  const Machine machine = InspectMachine();
  constexpr int64_t kUnknown = int64_t{4} << 30;  // /proc is hidden: a guess that most machines hold
  const int64_t total = machine.memory_bytes.value_or(kUnknown);
  return std::min(total, machine.memory_limit_bytes.value_or(total));
}

}  // namespace weft
