// What a full KV block holds, as a name: equal names mean equal tokens behind equal prefixes, in one scope.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace weft {

// SHA-256, so that nobody can make two prefixes collide; the pool compares the tokens on top of it.
struct PrefixKey {
  std::array<uint8_t, 32> digest{};

  friend bool operator==(const PrefixKey&, const PrefixKey&) = default;
  template <typename H>
  friend H AbslHashValue(H state, const PrefixKey& key) {
    uint64_t word = 0;  // of a digest that is uniform already
    std::memcpy(&word, key.digest.data(), sizeof word);
    return H::combine(std::move(state), word);
  }
};

// Sequences share blocks only within one scope: a tenant, the model, and a salt of the client's choice.
PrefixKey ScopeKey(absl::string_view tenant, absl::string_view model, absl::string_view salt);

// The key of the block that holds `tokens` behind what `before` names.
PrefixKey NextPrefixKey(const PrefixKey& before, absl::Span<const int32_t> tokens);

// The keys of all full blocks of `tokens`, in order; each names everything before it too.
std::vector<PrefixKey> PrefixKeys(const PrefixKey& scope, absl::Span<const int32_t> tokens, int block_size);

}  // namespace weft
