#include "server/limits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"

namespace weft {
namespace {

constexpr double kMaxInt32 = std::numeric_limits<int32_t>::max();
// Exclusive zero: the least number that a float of the engine still tells from it.
constexpr double kAboveZero = 1e-6;

const std::array<NumberLimit, 12> kNumberLimits = {{
    {"n", 1, 8, &GenerateRequest::n},
    {"max_tokens", 1, kMaxInt32, &GenerateRequest::max_tokens},
    {"min_tokens", 0, kMaxInt32, &GenerateRequest::min_tokens},
    {"temperature", 0, 2, &GenerateRequest::temperature},
    {"top_p", kAboveZero, 1, &GenerateRequest::top_p},
    {"top_k", -1, kMaxInt32, &GenerateRequest::top_k},
    {"min_p", 0, 1, &GenerateRequest::min_p},
    {"repetition_penalty", kAboveZero, 10, &GenerateRequest::repetition_penalty},
    {"presence_penalty", -2, 2, &GenerateRequest::presence_penalty},
    {"frequency_penalty", -2, 2, &GenerateRequest::frequency_penalty},
    {"seed", -0x1p63, 0x1p63, &GenerateRequest::seed},  // any; listed because the table is also the documentation
    {"logprobs", 0, 20, &GenerateRequest::num_logprobs},
}};

std::optional<double> Value(const GenerateRequest& request, const NumberLimit& limit) {
  return std::visit(
      [&request](auto field) -> std::optional<double> {
        if constexpr (requires { (request.*field).has_value(); }) {
          if (!(request.*field).has_value()) return std::nullopt;
          return static_cast<double>(*(request.*field));
        } else {
          return static_cast<double>(request.*field);
        }
      },
      limit.field);
}

absl::Status OutOfRange(absl::string_view param, absl::string_view message) {
  return BadRequest("out_of_range", param, message);
}

std::string RangeText(const NumberLimit& limit) {
  if (limit.least == kAboveZero) return absl::StrCat("must be above 0 and at most ", limit.most);
  if (limit.most == kMaxInt32) return absl::StrCat("must be an integer from ", limit.least, " on");
  return absl::StrCat("must be from ", limit.least, " to ", limit.most);
}

absl::Status CheckNumbers(const GenerateRequest& request) {
  for (const NumberLimit& limit : kNumberLimits) {
    const std::optional<double> value = Value(request, limit);
    // Written so that a NaN fails.
    if (value.has_value() && !(*value >= limit.least && *value <= limit.most)) {
      return OutOfRange(limit.name, RangeText(limit));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckStops(const GenerateRequest& request) {
  if (request.stop.size() > kMaxStops) return OutOfRange("stop", "at most 4 stop strings are allowed");
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return OutOfRange("stop", "a stop string must have 1 to 256 bytes");
    }
  }
  if (request.stop_token_ids.size() > kMaxStopTokenIds) {
    return OutOfRange("stop_token_ids", "at most 64 stop token ids are allowed");
  }
  return absl::OkStatus();
}

absl::Status CheckLogitBias(const GenerateRequest& request) {
  if (request.logit_bias.size() > kMaxLogitBiases) return OutOfRange("logit_bias", "at most 300 entries are allowed");
  for (const auto& [token, bias] : request.logit_bias) {
    if (!(std::abs(bias) <= kMaxLogitBias)) return OutOfRange("logit_bias", "a bias must be between -100 and 100");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Span<const NumberLimit> NumberLimits() { return kNumberLimits; }

absl::Status CheckLimits(const GenerateRequest& request) {
  RETURN_IF_ERROR(CheckNumbers(request));
  RETURN_IF_ERROR(CheckStops(request));
  RETURN_IF_ERROR(CheckLogitBias(request));
  if (request.cache_salt.size() > kMaxCacheSaltBytes) return OutOfRange("cache_salt", "has more than 512 bytes");
  if (request.echo && request.num_logprobs.has_value() && request.n > 1) {
    return BadRequest("unsupported_combination", "n", "must be 1 together with echo and logprobs");
  }
  if (request.max_tokens.has_value() && request.min_tokens > *request.max_tokens) {
    return OutOfRange("min_tokens", "min_tokens exceeds max_tokens");
  }
  return absl::OkStatus();
}

absl::Status CheckScores(int64_t num_scores) {
  if (num_scores <= kMaxScores) return absl::OkStatus();
  return OutOfRange("logprobs", "with echo, at most 262144 log-probabilities of prompts are given");
}

absl::Status CheckTokenIds(absl::Span<const int32_t> ids, int32_t vocab_size, absl::string_view param) {
  const bool known = std::all_of(ids.begin(), ids.end(), [=](int32_t id) { return id >= 0 && id < vocab_size; });
  if (known) return absl::OkStatus();
  return BadRequest("invalid_token_id", param, "a token id is not in the model's vocabulary");
}

}  // namespace weft
