// The tensors of a model directory: model.safetensors, or the shards that model.safetensors.index.json names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/load_progress.h"
#include "engine/model_dir.h"
#include "engine/model_file.h"
#include "engine/safetensors.h"
#include "engine/shard_index.h"

namespace weft {

// An open checkpoint: every header is read and checked; of the tensors, nothing but what a manifest asks for. Any
// threads may read.
class Checkpoint {
 public:
  struct Entry {
    TensorInfo info;
    size_t shard = 0;
  };

  // The single file wins over an index, as in transformers. Other formats are never opened. Where the directory has a
  // manifest all weight files are read, several at a time, and checked against it before anything is made of them;
  // `meter` (may be null) expects these bytes and counts them.
  //
  // Errors: those of ReadSafetensorsHeader, ReadModelFile and ModelFile::Verify; NotFound not_found when there are no
  // weights; InvalidArgument refused_format when there are only weights of formats that can run code or that Weft
  // doesn't read; InvalidArgument index_invalid when the index names no plain .safetensors file or an absent one,
  // disagrees with a shard about the tensors in it, or gives another total_size than the tensors have.
  static absl::StatusOr<Checkpoint> Open(const ModelDir& dir, LoadMeter* meter = nullptr);

  // Where errors about the checkpoint as a whole point: the single file, or the index.
  const std::string& path() const { return path_; }
  const absl::flat_hash_map<std::string, Entry>& entries() const { return entries_; }
  // Null when there is no such tensor.
  const Entry* Find(absl::string_view name) const;
  const std::string& FileOf(const Entry& entry) const { return shards_[entry.shard].path(); }

  // Fills out[0 .. bytes) from the tensor's byte `offset` on; it has them.
  absl::Status Read(const Entry& entry, uint64_t offset, size_t bytes, void* out) const;

  // The file that holds the tensor, and where its bytes begin there: for a FileReader.
  const ModelFile& file(const Entry& entry) const { return shards_[entry.shard]; }
  uint64_t BeginOf(const Entry& entry) const { return data_begins_[entry.shard] + entry.info.begin; }

 private:
  absl::Status AddShard(ModelFile file);
  absl::Status AddShards(std::vector<ModelFile> files);
  absl::StatusOr<std::vector<ModelFile>> OpenShards(const ModelDir& dir, const ShardIndex& index) const;
  absl::Status CheckAgainst(const ShardIndex& index) const;

  std::string path_;
  std::vector<ModelFile> shards_;
  std::vector<uint64_t> data_begins_;  // of each shard
  absl::flat_hash_map<std::string, Entry> entries_;
};

}  // namespace weft
