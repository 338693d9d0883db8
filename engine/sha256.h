// SHA-256 (FIPS 180-4): what a manifest knows files by. About 1 GB/s a core.
#pragma once

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

struct evp_md_ctx_st;

namespace weft {

// The digest of bytes that come in pieces. Used from one thread.
class Sha256 {
 public:
  Sha256();
  ~Sha256();

  void Add(absl::string_view bytes);
  // 64 hex digits, lower case. Nothing may be added after it.
  std::string Hex();

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// Of bytes that are all there.
std::string Sha256Hex(absl::string_view bytes);

}  // namespace weft
