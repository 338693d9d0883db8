// What other machines on the same hardware took from this one, for benchmarks.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/time/time.h"

namespace weft {

// Summed over all processors, since the system started.
inline absl::Duration StolenTime() {
  std::ifstream file("/proc/stat");
  std::string cpu;
  int64_t ticks[8] = {};  // user, nice, system, idle, iowait, irq, softirq, steal: proc(5)
  file >> cpu;
  for (int64_t& tick : ticks) file >> tick;
  return absl::Seconds(1) * ticks[7] / sysconf(_SC_CLK_TCK);
}

}  // namespace weft
