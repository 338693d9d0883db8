#include "engine/checkpoint.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

// The name of a weight file of another format, or "". Looks at names only: most of these formats run code when read.
std::string OtherWeights(const std::string& dir) {
  constexpr absl::string_view kExtensions[] = {".bin", ".pt", ".pth", ".pkl", ".ckpt", ".gguf", ".h5", ".msgpack"};
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    for (const absl::string_view known : kExtensions) {
      if (extension == known) return it->path().filename().string();
    }
  }
  return "";
}

absl::Status NoWeights(const std::string& dir) {
  const std::string other = OtherWeights(dir);
  if (other.empty()) {
    return absl::NotFoundError(absl::StrCat(dir, ": not_found: neither ", kSingleFile, " nor ", kIndexFile));
  }
  return ModelFileError(absl::StrCat(dir, "/", other), "refused_format",
                        absl::StrCat("the only weights here, and Weft reads ", kSingleFile, " only"));
}

}  // namespace

const Checkpoint::Entry* Checkpoint::Find(absl::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

absl::Status Checkpoint::Read(const Entry& entry, uint64_t offset, size_t bytes, void* out) const {
  return shards_[entry.shard].Read(data_begins_[entry.shard] + entry.info.begin + offset, bytes, out);
}

absl::Status Checkpoint::AddShard(ModelFile file) {
  ASSIGN_OR_RETURN(SafetensorsHeader header, ReadSafetensorsHeader(file));
  const size_t shard = shards_.size();
  for (TensorInfo& tensor : header.tensors) {
    const std::string name = tensor.name;
    const auto [it, added] = entries_.try_emplace(name, Entry{std::move(tensor), shard});
    if (added) continue;
    return ModelFileError(
        path_, "index_invalid",
        absl::StrCat("tensor ", Quoted(name), " is in two shards: ", FileOf(it->second), " and ", file.path()));
  }
  data_begins_.push_back(header.data_begin);
  shards_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status Checkpoint::AddShards(const std::string& dir) {
  ASSIGN_OR_RETURN(const ShardIndex index, ReadShardIndex(dir, kIndexFile));
  for (const std::string& name : index.files) {
    absl::StatusOr<ModelFile> file = ModelFile::Open(dir, name);
    if (absl::IsNotFound(file.status())) {
      return ModelFileError(path_, "index_invalid", absl::StrCat("shard ", Quoted(name), " is absent"));
    }
    RETURN_IF_ERROR(file.status());
    RETURN_IF_ERROR(AddShard(*std::move(file)));
  }
  return CheckAgainst(index);
}

// The index and the headers of its shards must tell the same story.
absl::Status Checkpoint::CheckAgainst(const ShardIndex& index) const {
  const auto error = [&](const std::string& detail) { return ModelFileError(path_, "index_invalid", detail); };
  for (const auto& [name, shard] : index.file_of) {
    const Entry* entry = Find(name);
    if (entry != nullptr && entry->shard == shard) continue;
    return error(absl::StrCat("tensor ", Quoted(name), " is not in its shard ", Quoted(index.files[shard])));
  }
  uint64_t total = 0;
  for (const auto& [name, entry] : entries_) {
    if (!index.file_of.contains(name)) {
      return error(absl::StrCat("tensor ", Quoted(name), " of ", FileOf(entry), " is not in weight_map"));
    }
    total += entry.info.end - entry.info.begin;  // can't overflow: each lies within a file
  }
  if (index.total_size.value_or(total) == total) return absl::OkStatus();
  return error(absl::StrCat("metadata.total_size is ", *index.total_size, ", but the tensors have ", total, " bytes"));
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& model_dir) {
  Checkpoint checkpoint;
  const bool single = ModelFileExists(model_dir, kSingleFile);
  if (!single && !ModelFileExists(model_dir, kIndexFile)) return NoWeights(model_dir);
  checkpoint.path_ = absl::StrCat(model_dir, "/", single ? kSingleFile : kIndexFile);
  if (single) {
    ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(model_dir, kSingleFile));
    RETURN_IF_ERROR(checkpoint.AddShard(std::move(file)));
  } else {
    RETURN_IF_ERROR(checkpoint.AddShards(model_dir));
  }
  return checkpoint;
}

}  // namespace weft
