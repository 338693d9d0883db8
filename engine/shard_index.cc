#include "engine/shard_index.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model_file.h"
#include "engine/model_json.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxIndexBytes = uint64_t{64} << 20;
constexpr size_t kMaxShards = 4096;  // each stays open while loading
constexpr size_t kMaxTensors = 200'000;

absl::Status IndexError(const std::string& file, absl::string_view detail) {
  return ModelFileError(file, "index_invalid", detail);
}

// Some writers put the number down as a float.
absl::StatusOr<std::optional<uint64_t>> ReadTotalSize(const std::string& file, const json& index) {
  const ModelJsonFields fields(file, "", index);
  const json* metadata = fields.Find("metadata");
  if (metadata == nullptr) return std::nullopt;
  if (!metadata->is_object()) return IndexError(file, "metadata is not an object");
  const ModelJsonFields inner(file, "metadata.", *metadata);
  const json* size = inner.Find("total_size");
  if (size == nullptr) return std::nullopt;
  if (size->is_number_unsigned()) return size->get<uint64_t>();
  const double value = size->is_number_float() ? size->get<double>() : -1;
  constexpr double kMaxExact = 9007199254740992.0;  // 2^53
  if (value >= 0 && value <= kMaxExact && value == std::floor(value)) return static_cast<uint64_t>(value);
  return IndexError(file, "metadata.total_size is not a number of bytes");
}

absl::Status AddTensor(const std::string& file, const std::string& tensor, const json& shard,
                       absl::flat_hash_map<std::string, size_t>& places, ShardIndex& index) {
  if (!shard.is_string()) return IndexError(file, absl::StrCat("tensor ", Quoted(tensor), " has no file name"));
  const std::string& name = shard.get_ref<const std::string&>();
  if (!IsPlainFileName(name) || !absl::EndsWith(name, ".safetensors")) {
    return IndexError(file, absl::StrCat("tensor ", Quoted(tensor), " is in ", Quoted(name),
                                         ", not a plain name that ends in .safetensors"));
  }
  const auto [place, added] = places.try_emplace(name, index.files.size());
  if (added) index.files.push_back(name);
  if (index.files.size() > kMaxShards) return IndexError(file, absl::StrCat("more than ", kMaxShards, " shards"));
  index.file_of[tensor] = place->second;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ShardIndex> ReadShardIndex(const ModelDir& dir, const std::string& name) {
  ASSIGN_OR_RETURN(const std::string text, ReadModelFile(dir, name, kMaxIndexBytes));
  const std::string file = absl::StrCat(dir.path, "/", name);
  ASSIGN_OR_RETURN(const json object, ParseModelJson(file, text));
  const json* map = ModelJsonFields(file, "", object).Find("weight_map");
  if (map == nullptr || !map->is_object() || map->empty() || map->size() > kMaxTensors) {
    return IndexError(file, absl::StrCat("weight_map is not an object of 1 to ", kMaxTensors, " tensors"));
  }
  ShardIndex index;
  absl::flat_hash_map<std::string, size_t> places;  // file name -> place in index.files
  for (const auto& [tensor, shard] : map->items()) RETURN_IF_ERROR(AddTensor(file, tensor, shard, places, index));
  ASSIGN_OR_RETURN(index.total_size, ReadTotalSize(file, object));
  return index;
}

}  // namespace weft
