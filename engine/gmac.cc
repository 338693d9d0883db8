#include "engine/gmac.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>

#include "kernels/check.h"

namespace weft {

GmacKey RandomGmacKey() {
  GmacKey key{};
  CHECK(RAND_bytes(key.data(), static_cast<int>(key.size())) == 1, "OpenSSL has random bytes");
  return key;
}

void Gmac::Free::operator()(evp_cipher_ctx_st* context) const { EVP_CIPHER_CTX_free(context); }

Gmac::Gmac(const GmacKey& key) : context_(EVP_CIPHER_CTX_new()) {
  CHECK(context_ != nullptr && EVP_EncryptInit_ex(context_.get(), EVP_aes_128_gcm(), nullptr, key.data(), nullptr) == 1,
        "OpenSSL has AES-GCM");
}

Gmac::~Gmac() = default;

void Gmac::Begin(uint64_t number) {
  std::array<uint8_t, 12> iv{};
  std::memcpy(iv.data(), &number, sizeof(number));
  CHECK(EVP_EncryptInit_ex(context_.get(), nullptr, nullptr, nullptr, iv.data()) == 1, "the cipher is set");
}

void Gmac::Add(const void* bytes, size_t count) {
  const auto* from = static_cast<const uint8_t*>(bytes);
  constexpr size_t kMaxPiece = size_t{1} << 30;  // OpenSSL counts in int
  for (size_t done = 0; done < count;) {
    const size_t piece = std::min(count - done, kMaxPiece);
    int ignored = 0;
    CHECK(EVP_EncryptUpdate(context_.get(), nullptr, &ignored, from + done, static_cast<int>(piece)) == 1,
          "a message has begun");
    done += piece;
  }
}

GmacTag Gmac::End() {
  GmacTag tag{};
  int ignored = 0;
  CHECK(EVP_EncryptFinal_ex(context_.get(), tag.data(), &ignored) == 1 &&
            EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_GCM_GET_TAG, static_cast<int>(tag.size()), tag.data()) == 1,
        "a message has begun");
  return tag;
}

}  // namespace weft
