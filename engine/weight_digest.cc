#include "engine/weight_digest.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

// Public and arbitrary: the tags are checksums.
constexpr GmacKey kKey = {'w', 'e', 'f', 't', ' ', 'w', 'e', 'i', 'g', 'h', 't', 's', ' ', 'v', '1', 0};

std::string HexOf(const GmacTag& tag) {
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(tag.data()), tag.size()));
}

// One message of numbers and device memory. Each buffer's size goes before its bytes, so that no two lists of them
// make the same message.
class DeviceHash {
 public:
  explicit DeviceHash(Backend& backend) : backend_(backend), gmac_(kKey) { gmac_.Begin(0); }

  void Add(int64_t number) { gmac_.Add(&number, sizeof(number)); }

  absl::Status Add(const Buffer& buffer) {
    constexpr size_t kPieceBytes = size_t{1} << 20;
    Add(static_cast<int64_t>(buffer.bytes()));
    piece_.resize(std::min(buffer.bytes(), kPieceBytes));
    for (size_t begin = 0; begin < buffer.bytes(); begin += kPieceBytes) {
      const size_t bytes = std::min(buffer.bytes() - begin, kPieceBytes);
      backend_.CopyToHost(piece_.data(), static_cast<const char*>(buffer.data()) + begin, bytes);
      RETURN_IF_ERROR(backend_.Synchronize());
      gmac_.Add(piece_.data(), bytes);
    }
    return absl::OkStatus();
  }

  GmacTag End() { return gmac_.End(); }

 private:
  Backend& backend_;
  Gmac gmac_;
  std::string piece_;
};

// "a.q.weight", "a.k.weight" -> "a.q.weight+k.weight": what the names share stands once. Parts of one matrix are one.
std::string NameOf(const LinearSpec& spec) {
  std::string name = spec.parts.front().name;
  for (size_t i = 1; i < spec.parts.size(); ++i) {
    const std::string& before = spec.parts[i - 1].name;
    const std::string& next = spec.parts[i].name;
    if (next == before) continue;
    const auto differs = std::mismatch(before.begin(), before.end(), next.begin(), next.end()).second;
    const size_t dot = next.rfind('.', static_cast<size_t>(differs - next.begin()));
    absl::StrAppend(&name, "+", next.substr(dot == std::string::npos ? 0 : dot + 1));
  }
  return name;
}

absl::Status Disagreement(absl::string_view detail) {
  return absl::DataLossError(absl::StrCat("weights: integrity_error: ", detail));
}

}  // namespace

absl::StatusOr<TensorDigest> DigestWeight(const LinearSpec& spec, const Weight& weight, Backend& backend) {
  DeviceHash hash(backend);
  for (const int64_t number : {static_cast<int64_t>(weight.dtype), weight.out_features, weight.in_features}) {
    hash.Add(number);
  }
  for (const Buffer* buffer : {&weight.data, &weight.scale, &weight.bias}) RETURN_IF_ERROR(hash.Add(*buffer));
  return TensorDigest{NameOf(spec), hash.End()};
}

absl::StatusOr<TensorDigest> DigestNorm(const TensorSpec& spec, const Buffer& norm, Backend& backend) {
  DeviceHash hash(backend);
  RETURN_IF_ERROR(hash.Add(norm));
  return TensorDigest{spec.name, hash.End()};
}

std::string CombinedDigest(absl::Span<const TensorDigest> digests) {
  Gmac gmac(kKey);
  gmac.Begin(0);
  for (const TensorDigest& tensor : digests) {
    const auto length = static_cast<int64_t>(tensor.name.size());
    gmac.Add(&length, sizeof(length));
    gmac.Add(tensor.name.data(), tensor.name.size());
    gmac.Add(tensor.digest.data(), tensor.digest.size());
  }
  return HexOf(gmac.End());
}

absl::Status CompareDigests(absl::Span<const TensorDigest> a, absl::Span<const TensorDigest> b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i].name != b[i].name) {
      return Disagreement(absl::StrCat("where one rank has ", a[i].name, ", the other has ", b[i].name));
    }
    if (a[i].digest == b[i].digest) continue;
    return Disagreement(absl::StrCat("two ranks that should hold the same differ in ", a[i].name, ": ",
                                     HexOf(a[i].digest), " and ", HexOf(b[i].digest)));
  }
  if (a.size() == b.size()) return absl::OkStatus();
  const TensorDigest& extra = a.size() > b.size() ? a[b.size()] : b[a.size()];
  return Disagreement(absl::StrCat("only one of two ranks that should hold the same has ", extra.name));
}

}  // namespace weft
