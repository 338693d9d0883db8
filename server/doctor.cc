#include "server/doctor.h"

#include <dirent.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"

namespace weft {
namespace {

using Verdict = DoctorCheck::Verdict;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

// Below the first, not even a small model and its KV blocks fit beside the server; below the second, only small ones.
constexpr int64_t kLeastMemory = 512 * kMiB;
constexpr int64_t kAmpleMemory = 2 * kGiB;
// What containers get by default is 64 MiB, too little for ranks that exchange activations through it.
constexpr int64_t kAmpleShm = 256 * kMiB;
// Every connection holds a descriptor, and a process of its size some dozens more.
constexpr int64_t kLeastFiles = 256;
constexpr int64_t kAmpleFiles = 4096;

// cgroup v1 says "no limit" with the largest multiple of a page; nothing this large is meant.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The value of the first line "key: value" or "key  : value" of a /proc file.
std::optional<std::string> Field(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 1));
    if (absl::StripAsciiWhitespace(parts.first) == key) return std::string(absl::StripAsciiWhitespace(parts.second));
  }
  return std::nullopt;
}

std::optional<int64_t> FirstNumber(absl::string_view text) {
  const std::vector<absl::string_view> words = absl::StrSplit(text, absl::ByAnyChar(" \t\n"), absl::SkipEmpty());
  int64_t number = 0;
  if (words.empty() || !absl::SimpleAtoi(words[0], &number)) return std::nullopt;
  return number;
}

std::optional<int64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadFile(path);
  return text ? FirstNumber(*text) : std::nullopt;
}

// Names in a directory that begin with `prefix`; empty where there is no such directory.
std::vector<std::string> NamesIn(const std::string& path, absl::string_view prefix) {
  std::vector<std::string> names;
  DIR* directory = opendir(path.c_str());
  if (directory == nullptr) return names;
  while (const dirent* entry = readdir(directory)) {
    if (absl::StartsWith(entry->d_name, prefix)) names.emplace_back(entry->d_name);
  }
  closedir(directory);
  std::sort(names.begin(), names.end());
  return names;
}

std::string Size(int64_t bytes) {
  if (bytes < kGiB) return absl::StrCat(bytes / kMiB, " MiB");
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

DoctorCheck Pass(absl::string_view name, std::string found) {
  return {std::string(name), Verdict::kPass, std::move(found), ""};
}

// The folders that can limit this process through a cgroup controller: its own and each above it, in version 2's tree
// and in version 1's. A container may see its files at the root under a path that exists on the host alone; the walk
// up to the root finds them there.
std::vector<std::string> GroupFolders(const DoctorOptions& options, absl::string_view controller) {
  std::vector<std::string> folders;
  const std::string groups = ReadFile(options.root + "/proc/self/cgroup").value_or("");
  for (absl::string_view line : absl::StrSplit(groups, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));  // hierarchy:controllers:path
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(parts[1], ',');
    const bool version_1 = std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
    if (!version_1 && !parts[1].empty()) continue;
    const std::string tree = absl::StrCat(options.root, "/sys/fs/cgroup", version_1 ? absl::StrCat("/", controller) : "");
    for (std::string path = parts[2]; !path.empty(); path.resize(path.rfind('/'))) {
      if (path != "/") folders.push_back(tree + path);
      if (path.rfind('/') == std::string::npos) break;
    }
    folders.push_back(tree);
  }
  return folders;
}

std::optional<int64_t> GroupMemoryLimit(const DoctorOptions& options) {
  std::optional<int64_t> lowest;
  for (const std::string& folder : GroupFolders(options, "memory")) {
    for (absl::string_view file : {"/memory.max", "/memory.limit_in_bytes"}) {
      const std::optional<int64_t> limit = ReadNumber(absl::StrCat(folder, file));
      if (limit && *limit < kNoLimit) lowest = std::min(lowest.value_or(*limit), *limit);
    }
  }
  return lowest;
}

// Cores' worth of time a second: 1.5 is three of two half seconds.
std::optional<double> GroupCpuQuota(const DoctorOptions& options) {
  std::optional<double> lowest;
  for (const std::string& folder : GroupFolders(options, "cpu")) {
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

DoctorCheck CheckCpu(const DoctorOptions& options) {
  const std::string info = ReadFile(options.root + "/proc/cpuinfo").value_or("");
  const std::string flags = Field(info, "flags").value_or("");
  const std::vector<absl::string_view> known = absl::StrSplit(flags, ' ', absl::SkipEmpty());
  std::vector<absl::string_view> features;
  for (absl::string_view feature : {"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"}) {
    if (std::find(known.begin(), known.end(), feature) != known.end()) features.push_back(feature);
  }
  std::string found = absl::StrCat(Field(info, "model name").value_or("unnamed"), " (",
                                   features.empty() ? "no vector feature that counts" : absl::StrJoin(features, " "),
                                   "), kernels: ", std::string(cpu::IsaName(options.isa)));
  if (options.isa != cpu::Isa::kPortable) return Pass("cpu", std::move(found));
  return {"cpu", Verdict::kWarn, std::move(found),
          "the portable kernels are many times slower; on a virtual machine, hand the host's CPU model through (QEMU: "
          "-cpu host), else use a machine with AVX2"};
}

DoctorCheck CheckCores(const DoctorOptions& options) {
  const std::string info = ReadFile(options.root + "/proc/cpuinfo").value_or("");
  const auto cores = std::count_if(info.begin(), info.end(), [](char) { return false; }) +
                     static_cast<int64_t>(std::vector<absl::string_view>(absl::StrSplit(info, "processor\t")).size()) - 1;
  const std::optional<double> quota = GroupCpuQuota(options);
  if (!quota || *quota >= static_cast<double>(cores)) return Pass("cores", absl::StrCat(cores));
  return {"cores", Verdict::kWarn, absl::StrFormat("%d, of which the group may use %.2g", cores, *quota),
          absl::StrFormat("threads beyond the quota are halted in the middle of a step: serve with --threads %d, or raise "
                          "the container's CPU limit",
                          std::max<int64_t>(1, static_cast<int64_t>(*quota)))};
}

DoctorCheck CheckMemory(const DoctorOptions& options) {
  const std::string info = ReadFile(options.root + "/proc/meminfo").value_or("");
  const std::optional<int64_t> total_kib = FirstNumber(Field(info, "MemTotal").value_or(""));
  const std::optional<int64_t> available_kib = FirstNumber(Field(info, "MemAvailable").value_or(""));
  if (!total_kib || !available_kib) return Pass("memory", "not visible");
  const std::optional<int64_t> limit = GroupMemoryLimit(options);
  std::string found = absl::StrCat(Size(*total_kib * 1024), ", ", Size(*available_kib * 1024), " available",
                                   limit ? absl::StrCat(", group limit ", Size(*limit)) : "");
  const int64_t usable = std::min(*available_kib * 1024, limit.value_or(*available_kib * 1024));
  if (usable >= kAmpleMemory) return Pass("memory", std::move(found));
  return {"memory", usable < kLeastMemory ? Verdict::kFail : Verdict::kWarn, std::move(found),
          "stop other programs or raise the container's memory limit; serve a smaller model, --weight-dtype int8, and a "
          "smaller --kv-cache-memory"};
}

// NVIDIA is PCI vendor 0x10de; display controllers are class 0x03xxxx.
size_t CountNvidiaCards(const DoctorOptions& options) {
  const std::string devices = options.root + "/sys/bus/pci/devices";
  size_t cards = 0;
  for (const std::string& device : NamesIn(devices, "")) {
    const std::string folder = absl::StrCat(devices, "/", device);
    if (absl::StartsWith(ReadFile(folder + "/vendor").value_or(""), "0x10de") &&
        absl::StartsWith(ReadFile(folder + "/class").value_or(""), "0x03")) {
      ++cards;
    }
  }
  return cards;
}

DoctorCheck CheckGpus(const DoctorOptions& options) {
  size_t nodes = 0;  // /dev/nvidia0, /dev/nvidia1, ...; nvidiactl and the like are not devices
  for (const std::string& name : NamesIn(options.root + "/dev", "nvidia")) {
    int64_t number = 0;
    if (absl::SimpleAtoi(absl::StripPrefix(name, "nvidia"), &number)) ++nodes;
  }
  const std::optional<std::string> driver = ReadFile(options.root + "/proc/driver/nvidia/version");
  const size_t cards = CountNvidiaCards(options);
  if (!driver && cards == 0 && nodes == 0) return Pass("gpu", "none: the CPU backend serves");
  if (!driver) {
    return {"gpu", Verdict::kWarn, absl::StrCat(std::max(cards, nodes), " NVIDIA, no driver: the CPU backend serves"),
            "install NVIDIA's driver and restart the machine"};
  }
  const std::string version(absl::StripAsciiWhitespace(Field(*driver, "NVRM version").value_or(*driver)));
  if (nodes == 0) {
    return {"gpu", Verdict::kWarn, absl::StrCat("driver ", version, ", but no device here: the CPU backend serves"),
            "give the container its devices: docker run --gpus all, or a nvidia.com/gpu resource limit"};
  }
  return Pass("gpu", absl::StrCat(nodes, ", driver ", version));
}

DoctorCheck CheckShm(const DoctorOptions& options) {
  const std::optional<int64_t> bytes = options.filesystem_bytes(options.root + "/dev/shm");
  if (bytes && *bytes >= kAmpleShm) return Pass("/dev/shm", Size(*bytes));
  return {"/dev/shm", Verdict::kWarn, bytes ? Size(*bytes) : "absent",
          "ranks in processes of their own exchange activations through it: docker run --shm-size=1g, or in Kubernetes "
          "an emptyDir with medium Memory mounted there"};
}

DoctorCheck CheckFiles(const DoctorOptions& options) {
  constexpr absl::string_view kRow = "Max open files";  // then the soft limit, the hard limit, the unit
  const std::string limits = ReadFile(options.root + "/proc/self/limits").value_or("");
  for (absl::string_view line : absl::StrSplit(limits, '\n')) {
    if (!absl::ConsumePrefix(&line, kRow)) continue;
    const std::optional<int64_t> soft = FirstNumber(line);
    if (!soft) return Pass("open files", "unlimited");
    if (*soft >= kAmpleFiles) return Pass("open files", absl::StrCat(*soft));
    return {"open files", *soft < kLeastFiles ? Verdict::kFail : Verdict::kWarn, absl::StrCat(*soft),
            "each client holds one: ulimit -n 65536 in the shell, LimitNOFILE=65536 in a systemd unit, or docker run "
            "--ulimit nofile=65536:65536"};
  }
  return Pass("open files", "not visible");
}

DoctorCheck CheckHugePages(const DoctorOptions& options) {
  const std::string path = "/sys/kernel/mm/transparent_hugepage/enabled";
  const std::optional<std::string> modes = ReadFile(options.root + path);  // "always [madvise] never"
  if (!modes) return Pass("huge pages", "not visible");
  for (absl::string_view mode : {"always", "madvise"}) {
    if (absl::StrContains(*modes, absl::StrCat("[", mode, "]"))) return Pass("huge pages", std::string(mode));
  }
  return {"huge pages", Verdict::kWarn, "never",
          absl::StrCat("weights are read once a step, and small pages slow that down: echo madvise > ", path)};
}

DoctorCheck CheckClock(const DoctorOptions& options) {
  const std::optional<std::string> source =
      ReadFile(options.root + "/sys/devices/system/clocksource/clocksource0/current_clocksource");
  if (!source) return Pass("clock", "not visible");
  std::string name(absl::StripAsciiWhitespace(*source));
  // These two are devices behind a bus: a reading costs a microsecond and a system call.
  if (name != "hpet" && name != "acpi_pm") return Pass("clock", std::move(name));
  return {"clock", Verdict::kWarn, std::move(name),
          "every token is timed, and this clock is slow to read: boot with clocksource=tsc, or choose the hypervisor's "
          "own clock"};
}

absl::string_view Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPass:
      return "pass";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      return "fail";
  }
  return "";
}

}  // namespace

std::optional<int64_t> FilesystemBytes(const std::string& path) {
  struct statvfs filesystem = {};
  if (statvfs(path.c_str(), &filesystem) != 0) return std::nullopt;
  return static_cast<int64_t>(filesystem.f_blocks) * static_cast<int64_t>(filesystem.f_frsize);
}

std::vector<DoctorCheck> RunDoctor(const DoctorOptions& options) {
  return {CheckCpu(options), CheckCores(options), CheckMemory(options),    CheckGpus(options),
          CheckShm(options), CheckFiles(options), CheckHugePages(options), CheckClock(options)};
}

int DoctorMain(std::ostream& out, const DoctorOptions& options) {
  int status = 0;
  for (const DoctorCheck& check : RunDoctor(options)) {
    out << Word(check.verdict) << " " << check.name << ": " << check.found << "\n";
    if (!check.remedy.empty()) out << "     " << check.remedy << "\n";
    if (check.verdict == Verdict::kFail) status = 1;
  }
  return status;
}

}  // namespace weft
