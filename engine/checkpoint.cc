#include "engine/checkpoint.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <system_error>
#include <thread>
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

// Reads all files, kMaxAtOnce at a time: one digest is the work of one core.
absl::Status VerifyFiles(const ModelDir& dir, LoadMeter* meter, std::vector<ModelFile>& files) {
  if (dir.manifest == nullptr) return absl::OkStatus();
  constexpr size_t kMaxAtOnce = 8;
  if (meter != nullptr) {
    for (const ModelFile& file : files) meter->Expect(static_cast<int64_t>(file.size()));
  }
  std::vector<absl::Status> statuses(files.size());
  std::atomic<size_t> next{0};
  const auto verify = [&] {
    for (size_t i = next++; i < files.size(); i = next++) {
      statuses[i] = files[i].Verify([meter](int64_t bytes) {
        if (meter != nullptr) meter->Add(bytes);
      });
      if (!statuses[i].ok()) next = files.size();  // what others have begun they end
    }
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < std::min(files.size(), kMaxAtOnce); ++i) threads.emplace_back(verify);
  verify();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

}  // namespace

const Checkpoint::Entry* Checkpoint::Find(absl::string_view name) const {
  const auto it = entries_.find(name);
  return it == entries_.end() ? nullptr : &it->second;
}

absl::Status Checkpoint::Read(const Entry& entry, uint64_t offset, size_t bytes, void* out) const {
  return file(entry).Read(BeginOf(entry) + offset, bytes, out);
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

absl::StatusOr<std::vector<ModelFile>> Checkpoint::OpenShards(const ModelDir& dir, const ShardIndex& index) const {
  std::vector<ModelFile> files;
  for (const std::string& name : index.files) {
    absl::StatusOr<ModelFile> file = ModelFile::Open(dir, name);
    if (absl::IsNotFound(file.status())) {
      return ModelFileError(path_, "index_invalid", absl::StrCat("shard ", Quoted(name), " is absent"));
    }
    RETURN_IF_ERROR(file.status());
    files.push_back(*std::move(file));
  }
  return files;
}

absl::Status Checkpoint::AddShards(std::vector<ModelFile> files) {
  for (ModelFile& file : files) RETURN_IF_ERROR(AddShard(std::move(file)));
  return absl::OkStatus();
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

absl::StatusOr<Checkpoint> Checkpoint::Open(const ModelDir& dir, LoadMeter* meter) {
  Checkpoint checkpoint;
  const bool single = ModelFileExists(dir, kSingleFile);
  if (!single && !ModelFileExists(dir, kIndexFile)) return NoWeights(dir.path);
  checkpoint.path_ = absl::StrCat(dir.path, "/", single ? kSingleFile : kIndexFile);
  std::vector<ModelFile> files;
  if (single) {
    ASSIGN_OR_RETURN(ModelFile file, ModelFile::Open(dir, kSingleFile));
    files.push_back(std::move(file));
    RETURN_IF_ERROR(VerifyFiles(dir, meter, files));
    RETURN_IF_ERROR(checkpoint.AddShards(std::move(files)));
    return checkpoint;
  }
  ASSIGN_OR_RETURN(const ShardIndex index, ReadShardIndex(dir, kIndexFile));
  ASSIGN_OR_RETURN(files, checkpoint.OpenShards(dir, index));
  RETURN_IF_ERROR(VerifyFiles(dir, meter, files));
  RETURN_IF_ERROR(checkpoint.AddShards(std::move(files)));
  RETURN_IF_ERROR(checkpoint.CheckAgainst(index));
  return checkpoint;
}

}  // namespace weft
