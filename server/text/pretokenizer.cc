#include "server/text/pretokenizer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/status_macros.h"
#include "server/text/pretokenizer_pattern.h"
#include "server/text/pretokenizer_splitters.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

Matcher LiteralMatcher(std::string literal) {
  return [literal = std::move(literal)](absl::string_view text, std::vector<Match>& matches) {
    for (size_t pos = text.find(literal); pos != absl::string_view::npos; pos = text.find(literal, pos)) {
      AppendMatch(pos, pos + literal.size(), matches);
      pos += literal.size();
    }
    AppendRest(text, matches);
  };
}

void FindNumbers(absl::string_view text, std::vector<Match>& matches) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = DecodeValidUtf8(text, pos);
    const size_t end = pos + static_cast<size_t>(c.num_bytes);
    if (IsNumber(c.code_point)) AppendMatch(pos, end, matches);
    pos = end;
  }
  AppendRest(text, matches);
}

}  // namespace

absl::StatusOr<Pretokenizer> Pretokenizer::FromJson(const JsonNode& node) {
  Pretokenizer pretokenizer;
  if (!node.IsNull()) RETURN_IF_ERROR(pretokenizer.Add(node));
  return pretokenizer;
}

// Recursion is bounded by the depth that ReadTokenizerJson allows.
absl::Status Pretokenizer::Add(const JsonNode& node) {
  ASSIGN_OR_RETURN(const std::string type, node.GetString("type"));
  if (is_byte_level_) return node.Refuse("unsupported_component", "ByteLevel must be the last of the chain");
  if (type == "Sequence") {
    const JsonNode parts = node.Child("pretokenizers");
    if (!parts.value().is_array()) return parts.Refuse("invalid_component", "must be an array");
    for (size_t i = 0; i < parts.value().size(); ++i) RETURN_IF_ERROR(Add(parts.Element(i)));
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplit(node);
  if (type == "ByteLevel") return AddByteLevel(node);
  if (type == "Metaspace") return AddMetaspace(node);
  if (type == "Digits") return AddDigits(node);
  if (type == "FixedLength" && node.Child("length").value() == 0) {
    return node.Child("length").Refuse("invalid_component", "must be positive");
  }
  return node.Refuse("unsupported_component", absl::StrCat("the pre-tokenizer ", type));
}

absl::Status Pretokenizer::AddSplit(const JsonNode& node) {
  SplitStep step;
  ASSIGN_OR_RETURN(const std::string behavior, node.GetString("behavior"));
  const std::pair<absl::string_view, Behavior> behaviors[] = {{"Isolated", Behavior::kIsolated},
                                                              {"Removed", Behavior::kRemoved},
                                                              {"Contiguous", Behavior::kContiguous},
                                                              {"MergedWithPrevious", Behavior::kMergedWithPrevious},
                                                              {"MergedWithNext", Behavior::kMergedWithNext}};
  bool known = false;
  for (const auto& [name, value] : behaviors) {
    if (behavior != name) continue;
    step.behavior = value;
    known = true;
  }
  if (!known) return node.Child("behavior").Refuse("invalid_component", "no such behavior");
  ASSIGN_OR_RETURN(step.invert, node.GetBool("invert", false));
  const JsonNode pattern = node.Child("pattern");
  if (!pattern.Child("String").IsNull()) {
    ASSIGN_OR_RETURN(std::string literal, pattern.GetString("String"));
    if (literal.empty()) return pattern.Refuse("invalid_component", "an empty pattern");
    step.find_matches = LiteralMatcher(std::move(literal));
  } else {
    ASSIGN_OR_RETURN(const std::string regex, pattern.GetString("Regex"));
    if (std::optional<Matcher> known_splitter = FindSplitter(regex)) {
      step.find_matches = *std::move(known_splitter);
    } else {
      absl::StatusOr<Matcher> matcher = CompilePattern(regex);
      if (!matcher.ok()) return pattern.Child("Regex").Refuse("unsupported_regex", matcher.status().message());
      step.find_matches = *std::move(matcher);
    }
  }
  removes_text_ |= step.behavior == Behavior::kRemoved;
  steps_.emplace_back(std::move(step));
  return absl::OkStatus();
}

absl::Status Pretokenizer::AddByteLevel(const JsonNode& node) {
  ASSIGN_OR_RETURN(const bool add_prefix_space, node.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const bool use_regex, node.GetBool("use_regex", true));
  if (add_prefix_space) steps_.emplace_back(PrefixStep{" ", Prefix::kAlways});
  if (use_regex) steps_.emplace_back(SplitStep{SplitGpt2, Behavior::kIsolated});
  is_byte_level_ = true;
  return absl::OkStatus();
}

absl::Status Pretokenizer::AddMetaspace(const JsonNode& node) {
  PrefixStep step;
  ASSIGN_OR_RETURN(step.space, node.GetString("replacement"));
  if (step.space.empty() || DecodeValidUtf8(step.space, 0).num_bytes != static_cast<int>(step.space.size())) {
    return node.Child("replacement").Refuse("invalid_component", "must be one character");
  }
  ASSIGN_OR_RETURN(const bool add_prefix_space, node.GetBool("add_prefix_space", true));
  ASSIGN_OR_RETURN(const std::string scheme, node.GetString("prepend_scheme", add_prefix_space ? "always" : "never"));
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    return node.Child("prepend_scheme").Refuse("invalid_component", "must be always, first or never");
  }
  if (!add_prefix_space && scheme != "never") {
    return node.Child("add_prefix_space").Refuse("invalid_component", "contradicts prepend_scheme");
  }
  step.when = scheme == "always" ? Prefix::kAlways : scheme == "first" ? Prefix::kFirst : Prefix::kNever;
  ASSIGN_OR_RETURN(const bool split, node.GetBool("split", true));
  SplitStep words{LiteralMatcher(step.space), Behavior::kMergedWithNext};
  steps_.emplace_back(std::move(step));
  if (split) steps_.emplace_back(std::move(words));
  return absl::OkStatus();
}

absl::Status Pretokenizer::AddDigits(const JsonNode& node) {
  ASSIGN_OR_RETURN(const bool individual, node.GetBool("individual_digits", false));
  steps_.emplace_back(SplitStep{FindNumbers, individual ? Behavior::kIsolated : Behavior::kContiguous});
  return absl::OkStatus();
}

PieceText Pretokenizer::Apply(std::string text, bool starts_prompt) const {
  PieceText pieces;
  pieces.text = std::move(text);
  if (!pieces.text.empty()) pieces.pieces.push_back({0, pieces.text.size()});
  for (const Step& step : steps_) {
    std::visit([&](const auto& s) { Run(s, starts_prompt, pieces); }, step);
  }
  return pieces;
}

void Pretokenizer::Run(const SplitStep& step, bool /*starts_prompt*/, PieceText& pieces) {
  std::vector<PieceText::Piece> cut;
  std::vector<Match> matches;
  for (const PieceText::Piece& piece : pieces.pieces) {
    matches.clear();
    step.find_matches(pieces.Bytes(piece), matches);
    Cut(step, matches, piece.begin, cut);
  }
  pieces.pieces = std::move(cut);
}

// A match joins what is before or behind it by dropping the boundary between them. Of several matches in a row, only
// the one next to other text joins it.
void Pretokenizer::Cut(const SplitStep& step, std::vector<Match>& matches, size_t offset,
                       std::vector<PieceText::Piece>& out) {
  const auto is_match = [&](size_t i) { return i < matches.size() && matches[i].is_match != step.invert; };
  size_t begin = 0;
  for (size_t i = 0; i < matches.size(); ++i) {
    const bool is_last = i + 1 == matches.size();
    bool joins_next = false;
    switch (step.behavior) {
      case Behavior::kIsolated:
        break;
      case Behavior::kRemoved:
        if (is_match(i)) begin = matches[i].end;
        break;
      case Behavior::kContiguous:
        joins_next = is_match(i) == is_match(i + 1);
        break;
      case Behavior::kMergedWithPrevious:
        joins_next = !is_match(i) && is_match(i + 1);
        break;
      case Behavior::kMergedWithNext:
        joins_next = is_match(i) && !is_match(i + 1);
        break;
    }
    if (joins_next && !is_last) continue;
    if (begin < matches[i].end) out.push_back({offset + begin, offset + matches[i].end});
    begin = matches[i].end;
  }
}

void Pretokenizer::Run(const PrefixStep& step, bool starts_prompt, PieceText& pieces) {
  PieceText out;
  out.text.reserve(pieces.text.size() + step.space.size());
  for (const PieceText::Piece& piece : pieces.pieces) {
    const size_t begin = out.text.size();
    const std::string bytes = absl::StrReplaceAll(pieces.Bytes(piece), {{" ", step.space}});
    const bool wanted =
        step.when == Prefix::kAlways || (step.when == Prefix::kFirst && starts_prompt && piece.begin == 0);
    if (wanted && !absl::StartsWith(bytes, step.space)) out.text += step.space;
    out.text += bytes;
    out.pieces.push_back({begin, out.text.size()});
  }
  pieces = std::move(out);
}

}  // namespace weft
