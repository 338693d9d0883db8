// The manifest that --manifest names, and the command that writes one.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/model_dir.h"
#include "server/config.h"
#include "server/text/file_check.h"

namespace weft {

// The model directory, with its manifest where the operator named one. Errors: those of ReadOperatorFile and
// ModelManifest::Parse.
absl::StatusOr<ModelDir> OpenModelDir(const ModelOptions& options);

// For the files that server/text reads; null where there is no manifest.
FileCheck CheckAgainst(const ModelDir& dir);

// A manifest of the files in DIR that Weft may read, as JSON with a line a file. Errors: those of ReadModelFile;
// NotFound when there is none.
absl::StatusOr<std::string> WriteManifest(const std::string& dir);

// `weft manifest DIR`; `args`: what follows the command. Returns the exit status.
int ManifestMain(const std::vector<std::string>& args, std::ostream& out, std::ostream& err);

}  // namespace weft
