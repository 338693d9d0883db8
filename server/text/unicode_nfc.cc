#include "server/text/unicode_nfc.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <type_traits>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

#include "server/text/unicode_nfc_tables.inc"

// Below kFirstDecomposed every character is a starter without a decomposition; below kFirstJoining every character is
// a starter that never joins what precedes it.
constexpr char32_t kFirstDecomposed = 0xC0;
constexpr char32_t kFirstJoining = 0x300;

// Hangul syllables compose by arithmetic (Unicode 16, section 3.12).
constexpr char32_t kHangulS = 0xAC00, kHangulL = 0x1100, kHangulV = 0x1161, kHangulT = 0x11A7;
constexpr char32_t kNumL = 19, kNumV = 21, kNumT = 28, kNumS = kNumL * kNumV * kNumT;

bool IsHangulS(char32_t c) { return c >= kHangulS && c < kHangulS + kNumS; }
bool IsHangulL(char32_t c) { return c >= kHangulL && c < kHangulL + kNumL; }
bool IsHangulV(char32_t c) { return c >= kHangulV && c < kHangulV + kNumV; }
// kHangulT itself stands for "no trailing consonant" and is no character of the set.
bool IsHangulT(char32_t c) { return c > kHangulT && c < kHangulT + kNumT; }

struct Mark {
  char32_t code_point;
  char32_t combining_class;
};

char32_t CombiningClass(char32_t c) {
  const auto* range = std::lower_bound(std::begin(kCombiningClasses), std::end(kCombiningClasses), c,
                                       [](const auto& r, char32_t x) { return r[1] < x; });
  return range != std::end(kCombiningClasses) && (*range)[0] <= c ? (*range)[2] : 0;
}

// A row of kDecompositions: a code point, then its decomposition.
using Decomposition = std::remove_reference_t<decltype(kDecompositions[0])>;

// The row of `c`, or null if it has none.
const Decomposition* FindDecomposition(char32_t c) {
  const auto* row = std::lower_bound(std::begin(kDecompositions), std::end(kDecompositions), c,
                                     [](const auto& r, char32_t x) { return r[0] < x; });
  return row != std::end(kDecompositions) && (*row)[0] == c ? row : nullptr;
}

void AppendDecomposition(char32_t c, std::vector<Mark>& out) {
  if (c < kFirstDecomposed) {
    out.push_back({c, 0});
    return;
  }
  if (IsHangulS(c)) {
    const char32_t index = c - kHangulS;
    out.push_back({kHangulL + index / (kNumV * kNumT), 0});
    out.push_back({kHangulV + index % (kNumV * kNumT) / kNumT, 0});
    if (index % kNumT != 0) out.push_back({kHangulT + index % kNumT, 0});
    return;
  }
  const auto* row = FindDecomposition(c);
  if (row == nullptr) {
    out.push_back({c, CombiningClass(c)});
    return;
  }
  for (size_t i = 1; i < std::size(*row) && (*row)[i] != 0; ++i) out.push_back({(*row)[i], CombiningClass((*row)[i])});
}

// The primary composite of a pair, or 0.
char32_t Compose(char32_t first, char32_t second) {
  if (IsHangulL(first) && IsHangulV(second)) {
    return kHangulS + ((first - kHangulL) * kNumV + (second - kHangulV)) * kNumT;
  }
  if (IsHangulS(first) && (first - kHangulS) % kNumT == 0 && IsHangulT(second)) {
    return first + (second - kHangulT);
  }
  const std::array<char32_t, 2> key = {first, second};
  const auto* row =
      std::lower_bound(std::begin(kCompositions), std::end(kCompositions), key,
                       [](const auto& r, const auto& k) { return r[0] != k[0] ? r[0] < k[0] : r[1] < k[1]; });
  return row != std::end(kCompositions) && (*row)[0] == first && (*row)[1] == second ? (*row)[2] : 0;
}

bool IsCompositionSecond(char32_t c) {
  static const std::vector<char32_t> seconds = [] {
    std::vector<char32_t> all;
    for (const auto& row : kCompositions) all.push_back(row[1]);
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
  }();
  return IsHangulV(c) || IsHangulT(c) || std::binary_search(seconds.begin(), seconds.end(), c);
}

// True if nothing before `c` can reorder with it or join it, so that text may be normalised in parts cut before `c`.
bool StartsCluster(char32_t c) {
  if (c < kFirstJoining || IsHangulS(c)) return true;
  const auto* row = FindDecomposition(c);
  const char32_t first = row == nullptr ? c : (*row)[1];
  return CombiningClass(first) == 0 && !IsCompositionSecond(first);
}

// Puts each run of marks into canonical order.
void Reorder(std::vector<Mark>& marks) {
  for (auto begin = marks.begin(); begin != marks.end();) {
    begin = std::find_if(begin, marks.end(), [](const Mark& m) { return m.combining_class != 0; });
    const auto end = std::find_if(begin, marks.end(), [](const Mark& m) { return m.combining_class == 0; });
    std::stable_sort(begin, end, [](const Mark& a, const Mark& b) { return a.combining_class < b.combining_class; });
    begin = end;
  }
}

// Canonical composition in place: a mark joins the last starter unless a mark of its own or a higher class, or
// another starter, stands between.
void ComposeCluster(std::vector<Mark>& marks) {
  size_t starter = marks.size();
  size_t num_kept = 0;
  for (const Mark mark : marks) {
    if (starter < num_kept) {
      const bool adjacent = starter + 1 == num_kept;
      const bool blocked = !adjacent && marks[num_kept - 1].combining_class >= mark.combining_class;
      const char32_t composite = blocked ? 0 : Compose(marks[starter].code_point, mark.code_point);
      if (composite != 0) {
        marks[starter].code_point = composite;
        continue;
      }
    }
    if (mark.combining_class == 0) starter = num_kept;
    marks[num_kept++] = mark;
  }
  marks.resize(num_kept);
}

}  // namespace

MarkedText NormalizeNfc(MarkedText input) {
  const absl::string_view text = input.text;
  if (std::none_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) >= 0xCC; })) return input;
  MarkedText out;
  out.text.reserve(text.size());
  std::vector<Mark> cluster;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    Utf8Char c = DecodeValidUtf8(text, pos);
    cluster.clear();
    do {
      AppendDecomposition(c.code_point, cluster);
      pos += static_cast<size_t>(c.num_bytes);
      if (pos < text.size()) c = DecodeValidUtf8(text, pos);
    } while (pos < text.size() && !StartsCluster(c.code_point));
    Reorder(cluster);
    ComposeCluster(cluster);
    for (const Mark& mark : cluster) AppendUtf8(mark.code_point, out.text);
    if (input.trusted.empty()) continue;
    out.trusted.resize(out.text.size(), input.IsTrusted(begin, pos) ? '\1' : '\0');
  }
  return out;
}

}  // namespace weft
