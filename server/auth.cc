#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/status_macros.h"
#include "server/operator_file.h"

namespace weft {
namespace {

constexpr size_t kMaxKeyBytes = 512;

bool IsHexDigest(absl::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(),
                                          [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); });
}

absl::Status BadLine(int line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("key file, line ", line, ": ", what));
}

}  // namespace

bool IsTenantName(absl::string_view name) {
  constexpr size_t kMaxBytes = 64;
  return !name.empty() && name.size() <= kMaxBytes && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

KeyStore::Digest KeyStore::DigestOf(absl::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

absl::StatusOr<KeyStore> KeyStore::Load(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadOperatorFile("key file", path));
  return Parse(text);
}

absl::StatusOr<KeyStore> KeyStore::Parse(absl::string_view text) {
  KeyStore store;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    if (words.size() != 2) return BadLine(number, "must be a tenant name and a SHA-256 digest");
    if (!IsTenantName(words[0]))
      return BadLine(number, "a tenant name is 1 to 64 of letters, digits, '-', '_' and '.'");
    if (!IsHexDigest(words[1])) {
      return BadLine(number,
                     "the second word must be the key's SHA-256 digest, 64 hex digits; keys in plain text are refused");
    }
    const std::string bytes = absl::HexStringToBytes(words[1]);
    Entry entry{std::string(words[0]), {}};
    std::copy(bytes.begin(), bytes.end(), entry.digest.begin());
    const auto same_key = [&](const Entry& other) { return other.digest == entry.digest; };
    if (std::any_of(store.entries_.begin(), store.entries_.end(), same_key)) {
      return BadLine(number, "this key was already given");
    }
    store.entries_.push_back(std::move(entry));
  }
  if (store.entries_.empty()) return absl::InvalidArgumentError("the key file holds no key");
  return store;
}

std::optional<std::string> KeyStore::TenantOf(absl::string_view key) const {
  if (key.empty() || key.size() > kMaxKeyBytes) return std::nullopt;
  const Digest digest = DigestOf(key);
  const Entry* found = nullptr;
  for (const Entry& entry : entries_) {  // to the end, also when found: the time tells nothing
    if (CRYPTO_memcmp(entry.digest.data(), digest.data(), digest.size()) == 0) found = &entry;
  }
  if (found == nullptr) return std::nullopt;
  return found->tenant;
}

std::optional<absl::string_view> BearerKey(absl::string_view authorization) {
  constexpr absl::string_view kScheme = "bearer ";  // RFC 9110: schemes are case-insensitive
  if (!absl::StartsWithIgnoreCase(authorization, kScheme)) return std::nullopt;
  const absl::string_view key = absl::StripAsciiWhitespace(authorization.substr(kScheme.size()));
  if (key.empty()) return std::nullopt;
  return key;
}

}  // namespace weft
