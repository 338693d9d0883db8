#include "server/doctor.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;
using Verdict = DoctorCheck::Verdict;

Machine GoodMachine() {
  Machine machine;
  machine.cpu_model = "Loom 9000";
  machine.cpu_features = {"fpu", "avx2", "fma"};
  machine.num_cores = 8;
  machine.memory_bytes = int64_t{16} << 30;
  machine.available_memory_bytes = int64_t{12} << 30;
  machine.shm_bytes = int64_t{8} << 30;
  machine.max_open_files = 65536;
  machine.huge_pages = "madvise";
  machine.clock = "tsc";
  return machine;
}

DoctorCheck Find(const std::vector<DoctorCheck>& checks, const std::string& name) {
  const auto check = std::find_if(checks.begin(), checks.end(), [&](const DoctorCheck& c) { return c.name == name; });
  EXPECT_NE(check, checks.end()) << name;
  return check == checks.end() ? DoctorCheck{} : *check;
}

TEST(DoctorTest, PassesAGoodMachine) {
  for (const DoctorCheck& check : RunDoctor(GoodMachine(), cpu::Isa::kAvx2, {})) {
    EXPECT_EQ(check.verdict, Verdict::kPass) << check.name << ": " << check.found;
  }
}

TEST(DoctorTest, PassesWhatTheSystemDoesNotShow) {
  Machine blind;
  blind.shm_bytes = GoodMachine().shm_bytes;
  for (const DoctorCheck& check : RunDoctor(blind, cpu::Isa::kAvx2, {})) {
    EXPECT_EQ(check.verdict, Verdict::kPass) << check.name << ": " << check.found;
  }
}

TEST(DoctorTest, NamesTheKernelsThatTheCpuSelects) {
  const DoctorCheck cpu = Find(RunDoctor(GoodMachine(), cpu::Isa::kAvx2, {}), "cpu");
  EXPECT_THAT(cpu.found, HasSubstr("Loom 9000"));
  EXPECT_THAT(cpu.found, HasSubstr(std::string(cpu::IsaName(cpu::Isa::kAvx2))));
}

struct Ailment {
  const char* description;
  std::function<void(Machine&)> afflict;
  const char* check;
  Verdict verdict;
  const char* remedy;  // a part of it
};

TEST(DoctorTest, JudgesEachAilment) {
  const Ailment ailments[] = {
      {"quota below the cores", [](Machine& m) { m.cpu_quota = 2.5; }, "cores", Verdict::kWarn, "--threads 2"},
      {"quota below one core", [](Machine& m) { m.cpu_quota = 0.5; }, "cores", Verdict::kWarn, "--threads 1"},
      {"quota of all cores", [](Machine& m) { m.cpu_quota = 8; }, "cores", Verdict::kPass, ""},
      {"little memory", [](Machine& m) { m.available_memory_bytes = 1 << 30; }, "memory", Verdict::kWarn, "int8"},
      {"no memory", [](Machine& m) { m.available_memory_bytes = 1 << 28; }, "memory", Verdict::kFail, "int8"},
      {"a small group", [](Machine& m) { m.memory_limit_bytes = 1 << 28; }, "memory", Verdict::kFail, "limit"},
      {"a large group", [](Machine& m) { m.memory_limit_bytes = int64_t{1} << 40; }, "memory", Verdict::kPass, ""},
      {"a card, no driver", [](Machine& m) { m.num_nvidia_cards = 1; }, "gpu", Verdict::kWarn, "driver"},
      {"a driver, no device", [](Machine& m) { m.nvidia_driver = "570"; }, "gpu", Verdict::kWarn, "--gpus all"},
      {"shared memory of a container", [](Machine& m) { m.shm_bytes = 64 << 20; }, "/dev/shm", Verdict::kWarn,
       "--shm-size"},
      {"no shared memory", [](Machine& m) { m.shm_bytes.reset(); }, "/dev/shm", Verdict::kWarn, "emptyDir"},
      {"few files", [](Machine& m) { m.max_open_files = 1024; }, "open files", Verdict::kWarn, "ulimit -n"},
      {"hardly any file", [](Machine& m) { m.max_open_files = 64; }, "open files", Verdict::kFail, "LimitNOFILE"},
      {"small pages", [](Machine& m) { m.huge_pages = "never"; }, "huge pages", Verdict::kWarn, "madvise"},
      {"a slow clock", [](Machine& m) { m.clock = "hpet"; }, "clock", Verdict::kWarn, "tsc"},
  };
  for (const Ailment& ailment : ailments) {
    SCOPED_TRACE(ailment.description);
    Machine machine = GoodMachine();
    ailment.afflict(machine);
    const DoctorCheck check = Find(RunDoctor(machine, cpu::Isa::kAvx2, {}), ailment.check);
    EXPECT_EQ(check.verdict, ailment.verdict) << check.found;
    EXPECT_THAT(check.remedy, HasSubstr(ailment.remedy));
    EXPECT_EQ(check.remedy.empty(), check.verdict == Verdict::kPass);
  }
}

struct GpuCase {
  const char* description;
  bool has_driver;
  CudaSupport cuda;
  Verdict verdict;
  const char* found;  // a part of it
};

TEST(DoctorTest, SaysWhatTheBinaryCanDoWithGpus) {
  const CudaDevice device{.name = "Shuttle", .capability = "9.0", .memory_bytes = int64_t{80} << 30};
  const GpuCase cases[] = {
      {"served", true, {.built_for = "80, 90a", .devices = {device}}, Verdict::kPass, "Shuttle (sm 9.0, 80.0 GiB)"},
      {"built without", true, {}, Verdict::kWarn, "built without CUDA"},
      {"an old driver", true, {.built_for = "80", .problem = "too old"}, Verdict::kWarn, "CUDA says: too old"},
      {"no driver",
       false,
       {.built_for = "80", .problem = "no driver"},
       Verdict::kPass,
       "the CPU serves (CUDA says: no"},
      {"neither", false, {}, Verdict::kPass, "none: the CPU serves"},
  };
  for (const GpuCase& c : cases) {
    SCOPED_TRACE(c.description);
    Machine machine = GoodMachine();
    if (c.has_driver) {
      machine.nvidia_driver = "580";
      machine.num_nvidia_devices = 1;
    }
    const DoctorCheck check = Find(RunDoctor(machine, cpu::Isa::kAvx2, c.cuda), "gpu");
    EXPECT_EQ(check.verdict, c.verdict) << check.found;
    EXPECT_THAT(check.found, HasSubstr(c.found));
    EXPECT_EQ(check.remedy.empty(), check.verdict == Verdict::kPass);
  }
}

TEST(DoctorTest, WarnsOfPortableKernels) {
  EXPECT_EQ(Find(RunDoctor(GoodMachine(), cpu::Isa::kPortable, {}), "cpu").verdict, Verdict::kWarn);
}

// A folder stands for the root of a machine.
class MachineTest : public testing::Test {
 protected:
  void Plant(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  const TempDir dir_;
  const std::string root_ = dir_.path();
};

TEST_F(MachineTest, IsBlankWhereNothingIsShown) {
  const Machine machine = InspectMachine(root_);
  EXPECT_EQ(machine.num_cores, 0);
  EXPECT_EQ(machine.memory_bytes, std::nullopt);
  EXPECT_EQ(machine.shm_bytes, std::nullopt);
  EXPECT_EQ(machine.max_open_files, std::nullopt);
  EXPECT_EQ(machine.nvidia_driver, std::nullopt);
}

TEST_F(MachineTest, ReadsProcAndSys) {
  Plant("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Loom 9000\nflags\t\t: fpu avx2\n\nprocessor\t: 1\n");
  Plant("/proc/meminfo", "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n");
  Plant("/proc/self/status", "Name:\tweft\nCpus_allowed_list:\t0-2,8,10-11\n");
  Plant("/proc/self/limits",
        "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024         4096   files\n");
  Plant("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  Plant("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
  std::filesystem::create_directories(root_ + "/dev/shm");

  const Machine machine = InspectMachine(root_);
  EXPECT_EQ(machine.cpu_model, "Loom 9000");
  EXPECT_THAT(machine.cpu_features, ElementsAre("fpu", "avx2"));
  EXPECT_EQ(machine.num_cores, 6);
  EXPECT_THAT(machine.memory_bytes, Optional(2 << 20));
  EXPECT_THAT(machine.available_memory_bytes, Optional(1 << 20));
  EXPECT_THAT(machine.max_open_files, Optional(1024));
  EXPECT_THAT(machine.huge_pages, Optional(std::string("never")));
  EXPECT_THAT(machine.clock, Optional(std::string("hpet")));
  EXPECT_TRUE(machine.shm_bytes.has_value());
}

TEST_F(MachineTest, CountsNvidiaCardsAndDevices) {
  Plant("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Module  570.1\nGCC version:  12\n");
  Plant("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
  Plant("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
  Plant("/sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n");
  Plant("/sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");  // the card's sound device
  Plant("/sys/bus/pci/devices/0000:02:00.0/vendor", "0x8086\n");
  Plant("/sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n");
  for (const char* node : {"nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"}) Plant(std::string("/dev/") + node, "");

  const Machine machine = InspectMachine(root_);
  EXPECT_EQ(machine.num_nvidia_cards, 1);
  EXPECT_EQ(machine.num_nvidia_devices, 2);
  EXPECT_THAT(machine.nvidia_driver, Optional(HasSubstr("570.1")));
}

TEST_F(MachineTest, TakesTheLowestLimitOfVersion2Groups) {
  Plant("/proc/self/cgroup", "0::/outer/inner\n");
  Plant("/sys/fs/cgroup/outer/inner/memory.max", "max\n");
  Plant("/sys/fs/cgroup/outer/memory.max", "4096\n");
  Plant("/sys/fs/cgroup/outer/inner/cpu.max", "150000 100000\n");
  Plant("/sys/fs/cgroup/outer/cpu.max", "max 100000\n");
  const Machine machine = InspectMachine(root_);
  EXPECT_THAT(machine.memory_limit_bytes, Optional(4096));
  EXPECT_THAT(machine.cpu_quota, Optional(1.5));
}

TEST_F(MachineTest, FindsVersion1LimitsWhereAContainerSeesThem) {
  Plant("/proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n");
  Plant("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n");
  Plant("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  Plant("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const Machine machine = InspectMachine(root_);
  EXPECT_THAT(machine.memory_limit_bytes, Optional(8192));
  EXPECT_THAT(machine.cpu_quota, Optional(0.5));
}

TEST_F(MachineTest, KnowsVersion1WithoutLimits) {
  Plant("/proc/self/cgroup", "4:memory:/\n2:cpu,cpuacct:/\n");
  Plant("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Plant("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Plant("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  const Machine machine = InspectMachine(root_);
  EXPECT_EQ(machine.memory_limit_bytes, std::nullopt);
  EXPECT_EQ(machine.cpu_quota, std::nullopt);
}

}  // namespace
}  // namespace weft
