// What the operating system says of the machine that Weft is to run on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft {

// A picture of the machine, taken once. Plain value. An empty optional is a thing that the system does not show, as in
// a sandbox without /sys.
struct Machine {
  std::string cpu_model;                  // as /proc/cpuinfo has it
  std::vector<std::string> cpu_features;  // likewise: "avx2", "avx512_vnni", ...
  int64_t num_cores = 0;                  // that this process may run on
  std::optional<double> cpu_quota;        // cores' worth of time that its control groups leave it; empty: no limit

  std::optional<int64_t> memory_bytes;
  std::optional<int64_t> available_memory_bytes;
  std::optional<int64_t> memory_limit_bytes;  // the lowest of its control groups; empty: no limit

  int64_t num_nvidia_cards = 0;              // on the PCI bus
  int64_t num_nvidia_devices = 0;            // in /dev, which is what a container was given
  std::optional<std::string> nvidia_driver;  // its version line

  std::optional<int64_t> shm_bytes;       // capacity of /dev/shm
  std::optional<int64_t> max_open_files;  // the soft limit
  std::optional<std::string> huge_pages;  // transparent ones: "always", "madvise" or "never"
  std::optional<std::string> clock;       // "tsc", "hpet", ...
};

// Reads /proc, /sys and /dev under `root`. Small files only: no device is opened, nothing is changed.
Machine InspectMachine(const std::string& root = "");

// Bytes that this process may use of the machine's memory.
int64_t UsableMemory();

}  // namespace weft
