#pragma once

#include <string>

#include "engine/model_dir.h"
#include "server/config.h"

namespace weft {

// Names what decides a model's output, in 16 hex digits: the build, the kernel path, how weights are stored, the text
// of the directory's small files and the names and sizes of its weight files. Weights are not read for it: two
// checkpoints that differ in nothing else have one fingerprint, unless they have a manifest, which then stands for all
// files.
std::string ModelFingerprint(const ModelOptions& model, const ModelDir& files);

}  // namespace weft
