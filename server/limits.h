// What a request may ask for: one table of ranges for both protocols, walked by the tests too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <variant>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/generate_request.h"

namespace weft {

inline constexpr size_t kMaxStops = 4;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr size_t kMaxStopTokenIds = 64;
inline constexpr size_t kMaxLogitBiases = 300;
inline constexpr size_t kMaxCacheSaltBytes = 512;
inline constexpr double kMaxLogitBias = 100;
inline constexpr int64_t kMaxScores = 1 << 18;  // log-probabilities of the prompts that one request has echoed

// A number of a request: the field's name on the wire and what it may hold, bounds included. A value outside, or one
// that isn't finite, is refused with `out_of_range` and the name as param.
struct NumberLimit {
  absl::string_view name;
  double least = 0;
  double most = 0;
  std::variant<int64_t GenerateRequest::*, double GenerateRequest::*, std::optional<int64_t> GenerateRequest::*,
               std::optional<double> GenerateRequest::*>
      field;
};

absl::Span<const NumberLimit> NumberLimits();

// Everything about a request that can be judged without a model: the table, the lists' lengths, fields that contradict
// each other. The first offence is reported.
absl::Status CheckLimits(const GenerateRequest& request);

// Of all prompts of a request together. Error: out_of_range, logprobs.
absl::Status CheckScores(int64_t num_scores);

// Token ids of a client must name a row of the vocabulary. Error: invalid_token_id with `param`.
absl::Status CheckTokenIds(absl::Span<const int32_t> ids, int32_t vocab_size, absl::string_view param);

}  // namespace weft
