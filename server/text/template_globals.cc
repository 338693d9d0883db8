// The functions a template may call by name, but for namespace(), which needs the render that owns the result.
#include "absl/time/time.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_function.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Call = TemplateCall;
using Kind = TemplateSequence::Kind;

// range() makes its numbers at once, so a long one is refused: 100,000 as in Jinja's sandbox.
constexpr int64_t kMaxRange = 100'000;
constexpr size_t kMaxTimeFormat = 256;

absl::StatusOr<Value> Range(const Call& call) {
  for (size_t i = 0; i < 3; ++i) {
    if (call.Has(i) && !call.Arg(i).IsIntegral()) return TemplateFailed("range needs integers");
  }
  int64_t start = call.Has(1) ? call.Arg(0).ToInt() : 0;
  int64_t stop = call.Has(1) ? call.Arg(1).ToInt() : call.Arg(0).ToInt();
  int64_t step = call.Has(2) ? call.Arg(2).ToInt() : 1;
  if (step == 0) return TemplateFailed("a range step of zero");
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) == kMaxRange) return TemplateOverBudget("a range of more than 100000");
    RETURN_IF_ERROR(call.budget().Spend(1));
    items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::Sequence(std::make_shared<const TemplateSequence>(Kind::kRange, std::move(items)));
}

absl::StatusOr<Value> MakeDict(const Call& call) {
  TemplateDict dict;
  if (call.raw().positional.size() > 1) return TemplateFailed("dict takes one mapping");
  if (!call.raw().positional.empty()) {
    const TemplateDict* source = call.raw().positional[0].AsDict();
    if (!source) return TemplateFailed("dict needs a mapping");
    RETURN_IF_ERROR(call.budget().Spend(static_cast<int64_t>(source->items().size())));
    dict = *source;
  }
  for (const auto& [name, value] : call.raw().named) dict.Set(Value::Literal(name), value);
  return Value::Dict(std::move(dict));
}

absl::StatusOr<Value> RaiseException(const Call&) { return TemplateRejected(); }

// The render's clock in UTC: the same on every replica, whatever its time zone.
absl::StatusOr<Value> StrftimeNow(const Call& call) {
  if (!call.Arg(0).IsText()) return TemplateFailed("strftime_now needs a format");
  const std::string& format = call.Arg(0).bytes();
  if (format.size() > kMaxTimeFormat) return TemplateOverBudget("a time format of more than 256 bytes");
  return Value::Untrusted(absl::FormatTime(format, call.now(), absl::UTCTimeZone()));
}

const std::vector<TemplateFunction>& Globals() {
  static const auto* globals = new std::vector<TemplateFunction>{
      {"range", {"start", "stop", "step"}, 1, Range},
      {"dict", {}, 0, MakeDict, /*variadic=*/true},
      {"raise_exception", {"message"}, 1, RaiseException},
      {"strftime_now", {"format"}, 1, StrftimeNow},
  };
  return *globals;
}

}  // namespace

const TemplateFunction* FindTemplateGlobal(absl::string_view name) { return FindTemplateFunction(Globals(), name); }

}  // namespace weft
