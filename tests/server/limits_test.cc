#include "server/limits.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "server/api_error.h"

namespace weft {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <typename T>
struct Unwrap {
  using Type = T;
};
template <typename T>
struct Unwrap<std::optional<T>> {
  using Type = T;
};

// False where the field can't hold such a value at all.
bool SetField(GenerateRequest& request, const NumberLimit& limit, double value) {
  return std::visit(
      [&](auto field) {
        using Value = typename Unwrap<std::remove_reference_t<decltype(request.*field)>>::Type;
        if constexpr (std::is_same_v<Value, int64_t>) {
          if (!std::isfinite(value) || value != std::floor(value) || std::abs(value) >= 0x1p63) return false;
        }
        request.*field = static_cast<Value>(value);
        return true;
      },
      limit.field);
}

void ExpectRefused(const GenerateRequest& request, absl::string_view code, absl::string_view param) {
  const absl::Status status = CheckLimits(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << param;
  EXPECT_EQ(ErrorCode(status), code) << param;
  EXPECT_EQ(ErrorParam(status), param);
}

TEST(LimitsTest, EveryNumberMayBeAtItsBoundsAndNotBeyond) {
  for (const NumberLimit& limit : NumberLimits()) {
    for (const double inside : {limit.least, limit.most}) {
      GenerateRequest request;
      request.max_tokens = std::numeric_limits<int32_t>::max();  // so that min_tokens may be as large
      if (!SetField(request, limit, inside)) continue;
      EXPECT_TRUE(CheckLimits(request).ok()) << limit.name << " " << inside;
    }
    for (const double outside : {limit.least - 1, limit.most + 1, -kInfinity, kInfinity, kNan, -1e30, 1e30, 1e308}) {
      GenerateRequest request;
      if (SetField(request, limit, outside)) ExpectRefused(request, "out_of_range", limit.name);
    }
  }
}

TEST(LimitsTest, TheDefaultsPass) { EXPECT_TRUE(CheckLimits(GenerateRequest()).ok()); }

TEST(LimitsTest, ListsAreBounded) {
  struct Case {
    absl::string_view param;
    void (*set)(GenerateRequest&);
  };
  const std::vector<Case> cases = {
      {"stop", [](GenerateRequest& r) { r.stop = std::vector<std::string>(kMaxStops + 1, "x"); }},
      {"stop", [](GenerateRequest& r) { r.stop = {""}; }},
      {"stop", [](GenerateRequest& r) { r.stop = {std::string(kMaxStopBytes + 1, 'x')}; }},
      {"stop_token_ids", [](GenerateRequest& r) { r.stop_token_ids.resize(kMaxStopTokenIds + 1); }},
      {"logit_bias", [](GenerateRequest& r) { r.logit_bias.resize(kMaxLogitBiases + 1); }},
      {"logit_bias",
       [](GenerateRequest& r) {
         r.logit_bias = {{1, kNan}};
       }},
      {"logit_bias",
       [](GenerateRequest& r) {
         r.logit_bias = {{1, 100.5}};
       }},
      {"min_tokens",
       [](GenerateRequest& r) {
         r.max_tokens = 3;
         r.min_tokens = 4;
       }},
  };
  for (const Case& c : cases) {
    GenerateRequest request;
    c.set(request);
    ExpectRefused(request, "out_of_range", c.param);
  }
}

TEST(LimitsTest, TokenIdsMustBeInTheVocabulary) {
  EXPECT_TRUE(CheckTokenIds({0, 9}, 10, "prompt").ok());
  for (const int32_t id : {-1, 10, std::numeric_limits<int32_t>::max()}) {
    const absl::Status status = CheckTokenIds({0, id}, 10, "prompt");
    EXPECT_EQ(ErrorCode(status), "invalid_token_id");
    EXPECT_EQ(ErrorParam(status), "prompt");
  }
}

}  // namespace
}  // namespace weft
