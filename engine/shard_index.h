// model.safetensors.index.json: which shard holds which tensor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/model_dir.h"

namespace weft {

struct ShardIndex {
  std::vector<std::string> files;                    // plain .safetensors names, each once
  absl::flat_hash_map<std::string, size_t> file_of;  // tensor name -> place in `files`
  std::optional<uint64_t> total_size;                // bytes of all tensors, where the index says it
};

// Errors: InvalidArgument index_invalid, invalid_json, and those of ReadModelFile.
absl::StatusOr<ShardIndex> ReadShardIndex(const ModelDir& dir, const std::string& name);

}  // namespace weft
