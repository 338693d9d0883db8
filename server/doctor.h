// `weft doctor`: looks at the machine before a model is served on it, and says what to mend.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"

namespace weft {

// One look at one thing. Plain value.
struct DoctorCheck {
  enum class Verdict {
    kPass,
    kWarn,  // serves, but slower or for fewer clients than the machine could
    kFail,  // serving will break
  };

  std::string name;  // a word or two: "memory"
  Verdict verdict = Verdict::kPass;
  std::string found;   // what is there
  std::string remedy;  // what to do about it; empty exactly when the verdict is kPass
};

// The size of the filesystem that holds `path`; none where there is no such path.
std::optional<int64_t> FilesystemBytes(const std::string& path);

// Where to look. The defaults are this machine; a test plants a tree of its own.
struct DoctorOptions {
  std::string root;  // goes before /proc, /sys and /dev
  cpu::Isa isa = cpu::DetectIsa();
  std::function<std::optional<int64_t>(const std::string& path)> filesystem_bytes = FilesystemBytes;
};

// All checks, in the order in which they are printed. Reads small files only: no device is opened, nothing is changed.
// What a machine does not show (no /sys in a sandbox, say) passes, and `found` says that it is not visible.
std::vector<DoctorCheck> RunDoctor(const DoctorOptions& options);

// Prints a line a check, "pass memory: 23.5 GiB, ...", and under it the remedy if there is one.
// Returns the exit status: 1 if a check failed, 0 otherwise.
int DoctorMain(std::ostream& out, const DoctorOptions& options = {});

}  // namespace weft
