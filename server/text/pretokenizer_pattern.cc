#define PCRE2_CODE_UNIT_WIDTH 8

#include "server/text/pretokenizer_pattern.h"

#include <pcre2.h>

#include <algorithm>
#include <memory>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"

namespace weft {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr size_t kMaxGroupDepth = 16;
constexpr size_t kMaxMatchBytes = 16 << 10;
constexpr uint32_t kMaxMatchSteps = 1'000'000;
constexpr uint32_t kMaxMatchDepth = 10'000;
constexpr uint32_t kMaxHeapKiB = 16 << 10;
constexpr uint32_t kMaxRepetition = 1000;

template <typename T, void (*Free)(T*)>
struct Pcre2Deleter {
  void operator()(T* object) const { Free(object); }
};
using Code = std::unique_ptr<pcre2_code, Pcre2Deleter<pcre2_code, pcre2_code_free>>;
using CompileContext =
    std::unique_ptr<pcre2_compile_context, Pcre2Deleter<pcre2_compile_context, pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Pcre2Deleter<pcre2_match_context, pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Pcre2Deleter<pcre2_match_data, pcre2_match_data_free>>;

absl::Status Unsupported(absl::string_view why, size_t pos) {
  return absl::InvalidArgumentError(absl::StrCat(why, " at byte ", pos));
}

// One pass over a regex that knows just enough of its syntax to accept the common language; without recursion.
class Screen {
 public:
  explicit Screen(absl::string_view regex) : regex_(regex) {}

  absl::Status Run() {
    if (regex_.size() > kMaxPatternBytes) return Unsupported("longer than 4 KiB", kMaxPatternBytes);
    groups_.push_back({});
    while (pos_ < regex_.size()) RETURN_IF_ERROR(Next());
    return groups_.size() == 1 ? absl::OkStatus() : Unsupported("unclosed group", pos_);
  }

 private:
  // A group that is open: whether it has an unbounded quantifier inside.
  struct Group {
    bool repeats = false;
  };

  bool Consume(absl::string_view prefix) {
    if (regex_.substr(pos_, prefix.size()) != prefix) return false;
    pos_ += prefix.size();
    return true;
  }

  absl::Status Next() {
    switch (regex_[pos_]) {
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '[':
        return Class();
      case '\\':
        RETURN_IF_ERROR(Escape());
        return Quantifier(/*repeats_inside=*/false);
      case '^':
      case '$':
        return Unsupported("an anchor", pos_);
      case '*':
      case '+':
      case '?':
      case '{':
        return Unsupported("a quantifier with nothing to repeat", pos_);
      case '|':
        ++pos_;
        return absl::OkStatus();
      default:
        ++pos_;
        return Quantifier(/*repeats_inside=*/false);
    }
  }

  absl::Status OpenGroup() {
    if (groups_.size() > kMaxGroupDepth) return Unsupported("groups nested too deep", pos_);
    const size_t begin = pos_++;
    if (Consume("?")) {
      if (!Consume(":") && !Consume("i:") && !Consume("=") && !Consume("!")) {
        return Unsupported("a group other than (?: (?i: (?= (?! and plain", begin);
      }
    } else if (Consume("*")) {
      return Unsupported("a verb", begin);
    }
    groups_.push_back({});
    return absl::OkStatus();
  }

  absl::Status CloseGroup() {
    if (groups_.size() == 1) return Unsupported("an unopened group", pos_);
    ++pos_;
    const Group closed = groups_.back();
    groups_.pop_back();
    groups_.back().repeats |= closed.repeats;
    return Quantifier(closed.repeats);
  }

  absl::Status Class() {
    const size_t begin = pos_++;
    Consume("^");
    if (regex_.substr(pos_, 1) == "]") return Unsupported("an empty class", begin);
    while (pos_ < regex_.size() && regex_[pos_] != ']') {
      if (regex_[pos_] == '[' || regex_.substr(pos_, 2) == "&&") return Unsupported("a class in a class", pos_);
      if (regex_[pos_] == '\\') {
        RETURN_IF_ERROR(Escape());
      } else {
        ++pos_;
      }
    }
    if (!Consume("]")) return Unsupported("an unclosed class", begin);
    return Quantifier(/*repeats_inside=*/false);
  }

  absl::Status Escape() {
    const size_t begin = pos_++;
    if (pos_ == regex_.size()) return Unsupported("an unfinished escape", begin);
    const char c = regex_[pos_++];
    if (c == 'p' || c == 'P') return Category(begin);
    const bool is_plain = !absl::ascii_isalnum(static_cast<unsigned char>(c));
    if (!is_plain && absl::string_view("sSdDrnt").find(c) == absl::string_view::npos) {
      return Unsupported(absl::StrCat("the escape \\", regex_.substr(begin + 1, 1)), begin);
    }
    return absl::OkStatus();
  }

  // \p{L}, \p{Lu}: scripts and properties mean different things to different engines.
  absl::Status Category(size_t begin) {
    const size_t end = regex_.find('}', pos_);
    const bool is_short = end != absl::string_view::npos && end - pos_ >= 2 && end - pos_ <= 3;
    if (!is_short || regex_[pos_] != '{' ||
        absl::string_view("LMNPSZC").find(regex_[pos_ + 1]) == absl::string_view::npos) {
      return Unsupported("a property that is no general category", begin);
    }
    pos_ = end + 1;
    return absl::OkStatus();
  }

  // The quantifier after an item, if there is one.
  absl::Status Quantifier(bool repeats_inside) {
    const size_t begin = pos_;
    bool unbounded = false;
    if (Consume("*") || Consume("+")) {
      unbounded = true;
    } else if (regex_.substr(pos_, 1) == "{") {
      RETURN_IF_ERROR(Count(unbounded));
    } else if (!Consume("?")) {
      return absl::OkStatus();
    }
    if (unbounded && repeats_inside) return Unsupported("a repetition inside a repetition", begin);
    const bool counted = regex_[begin] == '{';
    if (!counted && !Consume("?")) Consume("+");  // lazy, possessive
    if (pos_ < regex_.size() && absl::string_view("*+?{").find(regex_[pos_]) != absl::string_view::npos) {
      return Unsupported("a quantifier after a quantifier", pos_);
    }
    groups_.back().repeats |= unbounded;
    return absl::OkStatus();
  }

  // {m}, {m,} or {m,n}. More than a few repetitions of a repeating group cost as much as unbounded ones.
  absl::Status Count(bool& unbounded) {
    const size_t begin = pos_++;
    uint32_t number = 0;
    size_t digits = 0;
    for (; pos_ < regex_.size() && regex_[pos_] != '}'; ++pos_) {
      if (regex_[pos_] == ',' && digits > 0) {
        unbounded = regex_.substr(pos_ + 1, 1) == "}";
        digits = number = 0;
      } else if (regex_[pos_] >= '0' && regex_[pos_] <= '9') {
        number = number * 10 + static_cast<uint32_t>(regex_[pos_] - '0');
        if (++digits > 4 || number > kMaxRepetition) return Unsupported("too many repetitions", begin);
      } else {
        return Unsupported("a malformed repetition", begin);
      }
    }
    if (!Consume("}") || (digits == 0 && !unbounded)) return Unsupported("a malformed repetition", begin);
    unbounded |= number > 3;
    return absl::OkStatus();
  }

  absl::string_view regex_;
  size_t pos_ = 0;
  std::vector<Group> groups_;
};

// A compiled regex. Immutable, so that any number of threads may match with it.
class Pattern {
 public:
  static absl::StatusOr<std::shared_ptr<const Pattern>> Compile(const std::string& regex) {
    const CompileContext context(pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    size_t offset = 0;
    Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get()));
    if (code == nullptr) return Unsupported("not a valid pattern", offset);
    uint32_t matches_empty = 0;
    pcre2_pattern_info(code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
    if (matches_empty != 0) return absl::InvalidArgumentError("the pattern matches the empty string");
    MatchContext limits(pcre2_match_context_create(nullptr));
    pcre2_set_match_limit(limits.get(), kMaxMatchSteps);
    pcre2_set_depth_limit(limits.get(), kMaxMatchDepth);
    pcre2_set_heap_limit(limits.get(), kMaxHeapKiB);
    return std::make_shared<const Pattern>(std::move(code), std::move(limits));
  }

  Pattern(Code code, MatchContext limits) : code_(std::move(code)), limits_(std::move(limits)) {}

  void FindMatches(absl::string_view text, std::vector<Match>& matches) const {
    const MatchData data(pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    for (size_t pos = 0; pos < text.size();) {
      // The window moves with the position, so that each match may look kMaxMatchBytes ahead.
      const size_t window = WindowEnd(text, pos);
      const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), window, pos,
                                 PCRE2_NO_UTF_CHECK, data.get(), limits_.get());
      if (rc > 0) {
        const size_t* bounds = pcre2_get_ovector_pointer(data.get());
        AppendMatch(bounds[0], bounds[1], matches);
        pos = bounds[1];
      } else if (rc == PCRE2_ERROR_NOMATCH && window < text.size()) {
        pos = window;
      } else {
        break;
      }
    }
    AppendRest(text, matches);
  }

 private:
  static size_t WindowEnd(absl::string_view text, size_t pos) {
    size_t end = pos + std::min(kMaxMatchBytes, text.size() - pos);
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    return end;
  }

  Code code_;
  MatchContext limits_;
};

}  // namespace

absl::Status ScreenPattern(absl::string_view regex) { return Screen(regex).Run(); }

absl::StatusOr<Matcher> CompilePattern(const std::string& regex) {
  RETURN_IF_ERROR(ScreenPattern(regex));
  // Shared by the copies of the matcher.
  ASSIGN_OR_RETURN(const std::shared_ptr<const Pattern> pattern, Pattern::Compile(regex));
  return Matcher(
      [pattern](absl::string_view text, std::vector<Match>& matches) { pattern->FindMatches(text, matches); });
}

}  // namespace weft
