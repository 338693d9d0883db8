#pragma once

#include <string>

namespace weft {

// Text with a mark on each of its bytes: may a special token match here? It is what flows through the encoder until
// pieces are cut, so that the origin of a byte outlives every rewriting of the text.
struct MarkedText {
  // Valid UTF-8.
  std::string text;
  // [text.size()], 1 for a byte of trusted text, 0 for one of request data. A byte that a rewriting made of several is
  // trusted only if all of them were. Empty: nothing is trusted.
  std::string trusted;

  // Whether every byte of [begin, end) is trusted. Linear in its length.
  bool IsTrusted(size_t begin, size_t end) const {
    if (trusted.empty()) return false;
    for (size_t i = begin; i < end; ++i) {
      if (trusted[i] == 0) return false;
    }
    return true;
  }
};

}  // namespace weft
