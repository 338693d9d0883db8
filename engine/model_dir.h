// Where a model lies, and what its files must be.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "engine/model_manifest.h"

namespace weft {

// A path where nothing is known about the files: so strings convert.
struct ModelDir {
  ModelDir() = default;
  ModelDir(std::string dir) : path(std::move(dir)) {}
  ModelDir(const char* dir) : path(dir) {}
  ModelDir(std::string dir, std::shared_ptr<const ModelManifest> files)
      : path(std::move(dir)), manifest(std::move(files)) {}

  std::string path;
  // Every file that is read must be in it and match; null: any will do. Shared by all who open the directory's files.
  std::shared_ptr<const ModelManifest> manifest;
};

}  // namespace weft
