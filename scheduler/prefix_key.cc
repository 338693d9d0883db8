#include "scheduler/prefix_key.h"

#include <openssl/evp.h>

#include <memory>

#include "kernels/check.h"

namespace weft {
namespace {

struct Free {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(EVP_MD* digest) const { EVP_MD_free(digest); }
};

// OpenSSL's one-shot SHA256() looks its algorithm up each time, which costs more than hashing a block.
class Sha256 {
 public:
  Sha256() : digest_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
    CHECK(digest_ != nullptr && context_ != nullptr, "OpenSSL has SHA-256");
    CHECK(EVP_DigestInit_ex2(context_.get(), digest_.get(), nullptr) == 1, "SHA-256 begins");
  }
  void Add(const void* data, size_t bytes) {
    CHECK(EVP_DigestUpdate(context_.get(), data, bytes) == 1, "SHA-256 takes any bytes");
  }
  PrefixKey Finish() {
    PrefixKey key;
    CHECK(EVP_DigestFinal_ex(context_.get(), key.digest.data(), nullptr) == 1, "SHA-256 ends");
    CHECK(EVP_DigestInit_ex2(context_.get(), nullptr, nullptr) == 1, "SHA-256 begins again");
    return key;
  }

 private:
  std::unique_ptr<EVP_MD, Free> digest_;
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

Sha256& Hasher() {
  thread_local Sha256 hasher;
  return hasher;
}

}  // namespace

PrefixKey ScopeKey(absl::string_view tenant, absl::string_view model, absl::string_view salt) {
  Sha256& hasher = Hasher();
  for (const absl::string_view part : {tenant, model, salt}) {
    const uint64_t size = part.size();  // keeps ("ab", "c") and ("a", "bc") apart
    hasher.Add(&size, sizeof size);
    hasher.Add(part.data(), part.size());
  }
  return hasher.Finish();
}

PrefixKey NextPrefixKey(const PrefixKey& before, absl::Span<const int32_t> tokens) {
  Sha256& hasher = Hasher();
  hasher.Add(before.digest.data(), before.digest.size());
  hasher.Add(tokens.data(), tokens.size() * sizeof(int32_t));
  return hasher.Finish();
}

std::vector<PrefixKey> PrefixKeys(const PrefixKey& scope, absl::Span<const int32_t> tokens, int block_size) {
  const auto size = static_cast<size_t>(block_size);
  std::vector<PrefixKey> keys;
  keys.reserve(tokens.size() / size);
  PrefixKey last = scope;
  for (size_t begin = 0; begin + size <= tokens.size(); begin += size) {
    last = NextPrefixKey(last, tokens.subspan(begin, size));
    keys.push_back(last);
  }
  return keys;
}

}  // namespace weft
