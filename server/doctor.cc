#include "server/doctor.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"

namespace weft {
namespace {

using Verdict = DoctorCheck::Verdict;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kGiB = int64_t{1} << 30;

// Below the first, not even a small model and its KV blocks fit beside the server; below the second, only small ones.
constexpr int64_t kLeastMemory = 512 * kMiB;
constexpr int64_t kAmpleMemory = 2 * kGiB;
// A container gets 64 MiB unless told otherwise: too little for ranks that exchange activations through it.
constexpr int64_t kAmpleShm = 256 * kMiB;
// Each connection holds a descriptor, and the server itself some dozens.
constexpr int64_t kLeastFiles = 256;
constexpr int64_t kAmpleFiles = 4096;

DoctorCheck Pass(absl::string_view name, std::string found) {
  return {std::string(name), Verdict::kPass, std::move(found), ""};
}

DoctorCheck Warn(absl::string_view name, std::string found, std::string remedy) {
  return {std::string(name), Verdict::kWarn, std::move(found), std::move(remedy)};
}

// The verdict on a number of which there should be `ample`, and can't be less than `least`.
DoctorCheck Judge(DoctorCheck check, int64_t value, int64_t least, int64_t ample) {
  check.verdict = value >= ample ? Verdict::kPass : value >= least ? Verdict::kWarn : Verdict::kFail;
  if (check.verdict == Verdict::kPass) check.remedy.clear();
  return check;
}

std::string Size(int64_t bytes) {
  if (bytes < kGiB) return absl::StrCat(bytes / kMiB, " MiB");
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
}

DoctorCheck CheckCpu(const Machine& machine, cpu::Isa isa) {
  std::vector<std::string> features;  // those that the kernels know what to do with
  for (const char* feature : {"avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16"}) {
    const auto& all = machine.cpu_features;
    if (std::find(all.begin(), all.end(), feature) != all.end()) features.emplace_back(feature);
  }
  std::string found = absl::StrCat(machine.cpu_model, "; ", absl::StrJoin(features, " "), features.empty() ? "" : "; ",
                                   cpu::IsaName(isa), " kernels");
  if (isa != cpu::Isa::kPortable) return Pass("cpu", std::move(found));
  return Warn(
      "cpu", std::move(found),
      "the portable kernels are many times slower: use a CPU with AVX2; on a virtual machine, hand the host's CPU "
      "model through (QEMU: -cpu host)");
}

DoctorCheck CheckCores(const Machine& machine) {
  if (machine.num_cores == 0) return Pass("cores", "not visible");
  if (!machine.cpu_quota || *machine.cpu_quota >= static_cast<double>(machine.num_cores)) {
    return Pass("cores", absl::StrCat(machine.num_cores));
  }
  const auto threads = std::max(int64_t{1}, static_cast<int64_t>(*machine.cpu_quota));
  return Warn("cores", absl::StrFormat("%d, with time for %.3g", machine.num_cores, *machine.cpu_quota),
              absl::StrCat("threads beyond the quota are halted in the middle of a step: --threads ", threads,
                           ", or raise the container's CPU limit"));
}

DoctorCheck CheckMemory(const Machine& machine) {
  if (!machine.memory_bytes || !machine.available_memory_bytes) return Pass("memory", "not visible");
  const int64_t available = *machine.available_memory_bytes;
  const int64_t usable = std::min(available, machine.memory_limit_bytes.value_or(available));
  std::string found = absl::StrCat(Size(*machine.memory_bytes), ", ", Size(available), " available");
  if (machine.memory_limit_bytes) absl::StrAppend(&found, ", limited to ", Size(*machine.memory_limit_bytes));
  return Judge({"memory", Verdict::kPass, std::move(found),
                "stop other programs or raise the container's memory limit; or serve a smaller model, or this one with "
                "--weight-dtype int8 and a smaller --kv-cache-memory"},
               usable, kLeastMemory, kAmpleMemory);
}

std::string Describe(const CudaSupport& cuda) {
  std::vector<std::string> devices;
  for (const CudaDevice& device : cuda.devices) {
    devices.push_back(absl::StrCat(device.name, " (sm ", device.capability, ", ", Size(device.memory_bytes), ")"));
  }
  return absl::StrJoin(devices, ", ");
}

// What the machine has, and then whether this binary can use it.
DoctorCheck CheckGpus(const Machine& machine, const CudaSupport& cuda) {
  if (!cuda.devices.empty()) return Pass("gpu", absl::StrCat(Describe(cuda), ", kernels for sm ", cuda.built_for));
  const int64_t count = std::max(machine.num_nvidia_cards, machine.num_nvidia_devices);
  if (machine.nvidia_driver && machine.num_nvidia_devices > 0 && cuda.built_for.empty()) {
    return Warn("gpu", absl::StrCat(count, ", but this binary was built without CUDA: the CPU serves"),
                "build it with the CUDA toolkit: cmake -DWEFT_CUDA=ON");
  }
  if (machine.nvidia_driver && machine.num_nvidia_devices == 0) {
    return Warn("gpu", absl::StrCat("driver ", *machine.nvidia_driver, ", but no device in /dev: the CPU serves"),
                "give the container its devices: docker run --gpus all, or in Kubernetes an nvidia.com/gpu limit");
  }
  if (machine.nvidia_driver) {
    return Warn("gpu", absl::StrCat(count, ", driver ", *machine.nvidia_driver, ", but CUDA says: ", cuda.problem),
                "install the driver that this CUDA version wants; nvidia-smi tells what is there");
  }
  if (count == 0) {
    return Pass("gpu", cuda.built_for.empty() ? "none: the CPU serves"
                                              : absl::StrCat("none: the CPU serves (CUDA says: ", cuda.problem, ")"));
  }
  return Warn("gpu", absl::StrCat(count, ", without a driver: the CPU serves"), "install NVIDIA's driver");
}

DoctorCheck CheckShm(const Machine& machine) {
  if (machine.shm_bytes && *machine.shm_bytes >= kAmpleShm) return Pass("/dev/shm", Size(*machine.shm_bytes));
  return Warn(
      "/dev/shm", machine.shm_bytes ? Size(*machine.shm_bytes) : "absent",
      "ranks in processes of their own exchange activations there: docker run --shm-size=1g, or in Kubernetes an "
      "emptyDir with medium Memory");
}

DoctorCheck CheckOpenFiles(const Machine& machine) {
  if (!machine.max_open_files) return Pass("open files", "no limit visible");
  return Judge({"open files", Verdict::kPass, absl::StrCat(*machine.max_open_files),
                "each client holds one: ulimit -n 65536 in the shell, LimitNOFILE=65536 in a systemd unit, docker run "
                "--ulimit nofile=65536"},
               *machine.max_open_files, kLeastFiles, kAmpleFiles);
}

DoctorCheck CheckHugePages(const Machine& machine) {
  if (machine.huge_pages != "never") return Pass("huge pages", machine.huge_pages.value_or("not visible"));
  return Warn("huge pages", "never",
              "each step reads all weights, and small pages slow that down: echo madvise > "
              "/sys/kernel/mm/transparent_hugepage/enabled");
}

DoctorCheck CheckClock(const Machine& machine) {
  // These two are devices behind a bus: a reading costs a system call and a microsecond.
  if (machine.clock != "hpet" && machine.clock != "acpi_pm")
    return Pass("clock", machine.clock.value_or("not visible"));
  return Warn(
      "clock", *machine.clock,
      "each token is timed, and this clock is slow to read: boot with clocksource=tsc, or take the hypervisor's own");
}

absl::string_view Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPass:
      return "pass";
    case Verdict::kWarn:
      return "warn";
    case Verdict::kFail:
      break;
  }
  return "fail";
}

}  // namespace

std::vector<DoctorCheck> RunDoctor(const Machine& machine, cpu::Isa isa, const CudaSupport& cuda) {
  return {CheckCpu(machine, isa), CheckCores(machine),     CheckMemory(machine),    CheckGpus(machine, cuda),
          CheckShm(machine),      CheckOpenFiles(machine), CheckHugePages(machine), CheckClock(machine)};
}

int DoctorMain(std::ostream& out) {
  int status = 0;
  for (const DoctorCheck& check : RunDoctor(InspectMachine(), cpu::DetectIsa(), FindCuda())) {
    out << Word(check.verdict) << " " << check.name << ": " << check.found << "\n";
    if (!check.remedy.empty()) out << "     " << check.remedy << "\n";
    if (check.verdict == Verdict::kFail) status = 1;
  }
  return status;
}

}  // namespace weft
