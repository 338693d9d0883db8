// GMAC (NIST SP 800-38D): 128 bits over any number of bytes, ten times as fast as SHA-256 where the CPU has
// instructions for AES (11 GB/s on one core of an Ice Lake).
//
// Under a secret key nobody can find other bytes with the same tag. Under a key that everybody knows it is a checksum:
// different bytes have different tags unless somebody chose them so.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

struct evp_cipher_ctx_st;

namespace weft {

using GmacKey = std::array<uint8_t, 16>;
using GmacTag = std::array<uint8_t, 16>;

GmacKey RandomGmacKey();

// Tags messages that come in pieces, one after the other. Used from one thread.
class Gmac {
 public:
  explicit Gmac(const GmacKey& key);
  ~Gmac();

  // Begins a message. With a secret key, no two messages have the same number.
  void Begin(uint64_t number);
  void Add(const void* bytes, size_t count);
  GmacTag End();

 private:
  struct Free {
    void operator()(evp_cipher_ctx_st* context) const;
  };
  std::unique_ptr<evp_cipher_ctx_st, Free> context_;
};

}  // namespace weft
