// `weft doctor`: looks at the machine before a model is served on it, and says what to mend.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/device.h"
#include "server/machine.h"

namespace weft {

// One finding about one thing. Plain value.
struct DoctorCheck {
  enum class Verdict {
    kPass,
    kWarn,  // serves, but slower or for fewer clients than it could
    kFail,  // serving will break
  };

  std::string name;  // a word or two: "memory"
  Verdict verdict = Verdict::kPass;
  std::string found;   // what is there
  std::string remedy;  // what to do about it; empty exactly when the verdict is kPass
};

// All checks, in the order in which they are printed. `isa` is the kernel path that the CPU's features select, `cuda`
// what this binary can do with the GPUs. What the machine does not show passes, and `found` says that it is not
// visible.
std::vector<DoctorCheck> RunDoctor(const Machine& machine, cpu::Isa isa, const CudaSupport& cuda);

// Checks this machine. Prints a line a check, "pass memory: 23.5 GiB, ...", and under it the remedy if there is one.
// Returns the exit status: 1 if a check failed, 0 otherwise.
int DoctorMain(std::ostream& out);

}  // namespace weft
