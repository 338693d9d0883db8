#include "server/text/tokenizer_added.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

constexpr size_t kMaxTokens = 64 << 10;
constexpr size_t kMaxTokenBytes = 1024;
constexpr int32_t kMaxId = 4'000'000 + (64 << 10);

// The first byte of the character that ends before `end`. Requires end > 0.
size_t LastCharacter(absl::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool IsWholeWord(absl::string_view text, size_t begin, size_t end) {
  const bool joins_left = begin > 0 && IsWord(DecodeValidUtf8(text, LastCharacter(text, begin)).code_point);
  const bool joins_right = end < text.size() && IsWord(DecodeValidUtf8(text, end).code_point);
  return !joins_left && !joins_right;
}

size_t SkipSpacesBack(absl::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    const size_t begin = LastCharacter(text, end);
    if (!IsSpace(DecodeValidUtf8(text, begin).code_point)) break;
    end = begin;
  }
  return end;
}

size_t SkipSpaces(absl::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Char c = DecodeValidUtf8(text, begin);
    if (!IsSpace(c.code_point)) break;
    begin += static_cast<size_t>(c.num_bytes);
  }
  return begin;
}

absl::StatusOr<AddedToken> ReadToken(const JsonNode& node) {
  AddedToken token;
  ASSIGN_OR_RETURN(token.content, node.GetString("content"));
  if (token.content.empty()) return node.Child("content").Refuse("invalid_added_token", "empty");
  if (token.content.size() > kMaxTokenBytes) {
    return node.Child("content").Refuse("invalid_added_token", absl::StrCat("longer than ", kMaxTokenBytes, " bytes"));
  }
  const nlohmann::json& id = node.Child("id").value();
  if (!id.is_number_integer() || id < 0 || id >= kMaxId) {
    return node.Child("id").Refuse("invalid_added_token", absl::StrCat("must be an integer in 0..", kMaxId - 1));
  }
  token.id = id.get<int32_t>();
  ASSIGN_OR_RETURN(token.special, node.GetBool("special", false));
  ASSIGN_OR_RETURN(token.normalized, node.GetBool("normalized", !token.special));
  ASSIGN_OR_RETURN(token.lstrip, node.GetBool("lstrip", false));
  ASSIGN_OR_RETURN(token.rstrip, node.GetBool("rstrip", false));
  ASSIGN_OR_RETURN(token.single_word, node.GetBool("single_word", false));
  return token;
}

}  // namespace

void AddedTokens::Trie::Insert(absl::string_view spelling, size_t index) {
  if (spelling.empty()) return;
  starts[static_cast<uint8_t>(spelling[0])] = true;
  uint32_t node = 0;
  for (const char c : spelling) {
    const auto [child, is_new] =
        children.try_emplace(uint64_t{node} << 8 | static_cast<uint8_t>(c), static_cast<uint32_t>(token.size()));
    if (is_new) token.emplace_back();
    node = child->second;
  }
  if (!token[node].has_value()) token[node] = index;
}

absl::StatusOr<AddedTokens> AddedTokens::FromJson(const JsonNode& node, const TokenizerNormalizer& normalizer) {
  AddedTokens added;
  if (!node.IsNull()) RETURN_IF_ERROR(added.Read(node));
  for (size_t i = 0; i < added.tokens_.size(); ++i) {
    AddedToken& token = added.tokens_[i];
    token.decoded = token.normalized ? normalizer.Apply({token.content, ""}).text : token.content;
    Trie& trie = token.normalized ? added.normalized_ : added.raw_;
    trie.Insert(token.decoded, i);
  }
  return added;
}

absl::Status AddedTokens::Read(const JsonNode& node) {
  if (!node.value().is_array()) return node.Refuse("invalid_added_token", "must be an array");
  if (node.value().size() > kMaxTokens)
    return node.Refuse("invalid_added_token", absl::StrCat("more than ", kMaxTokens));
  absl::flat_hash_set<std::string> contents;
  absl::flat_hash_set<int32_t> ids;
  for (size_t i = 0; i < node.value().size(); ++i) {
    ASSIGN_OR_RETURN(AddedToken token, ReadToken(node.Element(i)));
    if (!contents.insert(token.content).second || !ids.insert(token.id).second) {
      return node.Element(i).Refuse("invalid_added_token", "content or id occurs twice");
    }
    tokens_.push_back(std::move(token));
  }
  return absl::OkStatus();
}

bool AddedTokens::strips_spaces() const {
  return std::any_of(tokens_.begin(), tokens_.end(), [](const AddedToken& t) { return t.lstrip || t.rstrip; });
}

// A special token that stands wholly in untrusted text is passed over as one run of text: no shorter token is looked
// for inside, as when the `tokenizers` package encodes with special tokens off. One that straddles trusted and
// untrusted text is no match at all, so that request data can't hide the template's own tokens.
AddedTokens::Found AddedTokens::FindAt(const Trie& trie, const MarkedText& text, size_t begin) const {
  Found found{std::nullopt, begin + 1};
  uint32_t node = 0;
  bool all_trusted = true;
  bool any_trusted = false;
  for (size_t end = begin; end < text.text.size(); ++end) {
    const auto child = trie.children.find(uint64_t{node} << 8 | static_cast<uint8_t>(text.text[end]));
    if (child == trie.children.end()) break;
    node = child->second;
    const bool trusted = text.IsTrusted(end, end + 1);
    all_trusted &= trusted;
    any_trusted |= trusted;
    if (!trie.token[node].has_value()) continue;
    if (all_trusted || !tokens_[*trie.token[node]].special) {
      found = {trie.token[node], end + 1};
    } else if (!any_trusted) {
      found = {std::nullopt, end + 1};
    }
  }
  return found;
}

std::vector<AddedTokens::Span> AddedTokens::Split(const Trie& trie, const MarkedText& marked) const {
  const absl::string_view text = marked.text;
  std::vector<Span> spans;
  size_t covered = 0;
  for (size_t pos = 0; pos < text.size();) {
    if (!trie.starts[static_cast<uint8_t>(text[pos])]) {
      ++pos;
      continue;
    }
    const Found found = FindAt(trie, marked, pos);
    size_t begin = pos;
    pos = found.end;
    if (!found.token.has_value()) continue;
    const AddedToken& token = tokens_[*found.token];
    if (token.single_word && !IsWholeWord(text, begin, pos)) continue;
    if (token.lstrip) begin = SkipSpacesBack(text, covered, begin);
    if (token.rstrip) pos = SkipSpaces(text, pos);
    if (covered < begin) spans.push_back({covered, begin, std::nullopt});
    spans.push_back({begin, pos, token.id});
    covered = pos;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), std::nullopt});
  return spans;
}

}  // namespace weft
