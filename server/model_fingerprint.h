#pragma once

#include <string>

#include "server/config.h"

namespace weft {

// Names what decides a model's output, in 16 hex digits: the build, the kernel path, how weights are stored, the text
// of the directory's small files and the names and sizes of its weight files. Weights are not read for it: two
// checkpoints that differ in nothing else have one fingerprint.
std::string ModelFingerprint(const ModelOptions& model);

}  // namespace weft
