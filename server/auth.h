// API keys: who may ask, and who pays.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace weft {

// 1 to 64 letters, digits, '-', '_' and '.', so that it can stand in logs, metrics and files as it is.
bool IsTenantName(absl::string_view name);

// The keys of one file, as digests: whoever reads the file or the process can't use them. Immutable, so any thread may
// ask.
//
// The file has a line for each key, `<tenant> <SHA-256 of the key, in hex>`, and may have blank lines and lines that
// begin with '#'. A tenant may have several keys, so that one can be replaced while the other still works:
//
//   # made by: key=sk-$(openssl rand -hex 32); echo "$key"; echo "search $(printf %s "$key" | sha256sum | cut -c-64)"
//   search 5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
//
// A plain digest is enough because keys are random, not chosen by people; a slow hash would only slow the server.
class KeyStore {
 public:
  // Errors name the line, never its content: not readable, no key in it, a bad tenant name, something that isn't a
  // digest (a key in plain text, say), the same key twice.
  static absl::StatusOr<KeyStore> Load(const std::string& path);
  static absl::StatusOr<KeyStore> Parse(absl::string_view text);

  // The tenant who holds this key; none for a key that isn't known. Takes the same time for all wrong keys.
  std::optional<std::string> TenantOf(absl::string_view key) const;

 private:
  using Digest = std::array<unsigned char, 32>;
  struct Entry {
    std::string tenant;
    Digest digest;
  };

  static Digest DigestOf(absl::string_view key);

  std::vector<Entry> entries_;
};

// The key in an `Authorization: Bearer <key>` header (or gRPC metadata) value; none for another scheme or an empty key.
std::optional<absl::string_view> BearerKey(absl::string_view authorization);

}  // namespace weft
