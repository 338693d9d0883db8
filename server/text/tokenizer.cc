#include "server/text/tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/text/detokenizer.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

constexpr int64_t kMaxLength = int64_t{1} << 30;

// Truncation and padding are the server's business and never applied here; what could not be applied is refused.
absl::Status CheckTruncation(const JsonNode& root) {
  const JsonNode truncation = root.Child("truncation");
  if (!truncation.IsNull()) {
    const nlohmann::json& max_length = truncation.Child("max_length").value();
    const nlohmann::json& stride = truncation.Child("stride").value();
    if (!max_length.is_number_integer() || max_length < 0 || max_length > kMaxLength) {
      return truncation.Child("max_length").Refuse("invalid_truncation", absl::StrCat("must be in 0..", kMaxLength));
    }
    if (!stride.is_null() && (!stride.is_number_integer() || stride < 0 || stride >= max_length)) {
      return truncation.Child("stride").Refuse("invalid_truncation", "must be less than max_length");
    }
  }
  const JsonNode padding = root.Child("padding");
  for (const JsonNode& length : {padding.Child("strategy").Child("Fixed"), padding.Child("pad_to_multiple_of")}) {
    if (length.IsNull()) continue;
    if (!length.value().is_number_integer() || length.value() < 0 || length.value() > kMaxLength) {
      return length.Refuse("invalid_truncation", absl::StrCat("must be in 0..", kMaxLength));
    }
  }
  return absl::OkStatus();
}

// A token name in tokenizer_config.json: a string, an object with "content", or null.
absl::StatusOr<std::string> ReadTokenName(const nlohmann::json& config, const std::string& key) {
  const nlohmann::json value = config.value(key, nlohmann::json());
  const nlohmann::json name = value.is_object() ? value.value("content", nlohmann::json()) : value;
  if (name.is_null()) return std::string();
  if (name.is_string()) return name.get<std::string>();
  return absl::InvalidArgumentError(absl::StrCat("tokenizer_config.json: inconsistent: ", key, ": must be a token"));
}

}  // namespace

Tokenizer::Tokenizer(TokenizerNormalizer normalizer, Pretokenizer pretokenizer, Bpe bpe, AddedTokens added,
                     TokenizerDecoder decoder)
    : normalizer_(std::move(normalizer)),
      pretokenizer_(std::move(pretokenizer)),
      bpe_(std::move(bpe)),
      added_(std::move(added)),
      decoder_(std::move(decoder)) {}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& dir, const FileCheck& check) {
  ASSIGN_OR_RETURN(const nlohmann::json tree,
                   ReadTokenizerJson(absl::StrCat(dir, "/tokenizer.json"), "tokenizer.json", check));
  ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, FromJson(tree));
  RETURN_IF_ERROR(tokenizer->ReadConfig(dir, check));
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(const nlohmann::json& tree) {
  const JsonNode root(tree, "");
  RETURN_IF_ERROR(CheckTruncation(root));
  ASSIGN_OR_RETURN(TokenizerNormalizer normalizer, TokenizerNormalizer::FromJson(root.Child("normalizer")));
  ASSIGN_OR_RETURN(Pretokenizer pretokenizer, Pretokenizer::FromJson(root.Child("pre_tokenizer")));
  ASSIGN_OR_RETURN(TokenizerDecoder decoder, TokenizerDecoder::FromJson(root.Child("decoder")));
  ASSIGN_OR_RETURN(AddedTokens added, AddedTokens::FromJson(root.Child("added_tokens"), normalizer));
  const BpeSymbols symbols = pretokenizer.is_byte_level() ? BpeSymbols::kBytes : BpeSymbols::kCharacters;
  ASSIGN_OR_RETURN(Bpe bpe, Bpe::FromJson(root.Child("model"), symbols));
  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(std::move(normalizer), std::move(pretokenizer), std::move(bpe),
                                                     std::move(added), std::move(decoder)));
  RETURN_IF_ERROR(tokenizer->IndexIds(root.Child("model").Child("vocab"), root.Child("added_tokens")));
  ASSIGN_OR_RETURN(tokenizer->template_,
                   TokenizerTemplate::FromJson(root.Child("post_processor"), tokenizer->spellings_));
  for (const AddedToken& token : tokenizer->added_.tokens()) {
    tokenizer->spellings_[static_cast<size_t>(token.id)] = token.decoded;
  }
  tokenizer->max_token_bytes_ = tokenizer->ComputeMaxTokenBytes();
  return tokenizer;
}

// The model's ids and those of added tokens together must be 0, 1, ... without gap, and each must mean one thing.
absl::Status Tokenizer::IndexIds(const JsonNode& vocab, const JsonNode& added_tokens) {
  int32_t size = 0;
  for (const auto& [token, id] : bpe_.vocab()) size = std::max(size, id + 1);
  for (const AddedToken& token : added_.tokens()) size = std::max(size, token.id + 1);
  const auto num_ids = static_cast<size_t>(size);
  if (num_ids > bpe_.vocab().size() + added_.tokens().size()) return vocab.Refuse("invalid_vocab", "a gap in the ids");
  spellings_.resize(num_ids);
  is_special_.resize(num_ids);
  std::vector<bool> is_used(num_ids);
  for (const auto& [token, id] : bpe_.vocab()) {
    const auto i = static_cast<size_t>(id);
    if (is_used[i]) return vocab.Refuse("invalid_vocab", absl::StrCat("two tokens have the id ", id));
    is_used[i] = true;
    spellings_[i] = token;
  }
  absl::flat_hash_set<int32_t> special_ids;
  for (const AddedToken& token : added_.tokens()) {
    if (token.special) special_ids.insert(token.id);
    const auto i = static_cast<size_t>(token.id);
    const auto in_vocab = bpe_.vocab().find(token.content);
    const bool clashes = in_vocab == bpe_.vocab().end() ? is_used[i] : in_vocab->second != token.id;
    if (clashes) {
      return added_tokens.Refuse("invalid_added_token", absl::StrCat("the id ", token.id, " means something else"));
    }
    is_used[i] = true;
    spellings_[i] = token.content;
    is_special_[i] = token.special;
    added_ids_[token.content] = token.id;
  }
  bpe_.Reserve(special_ids);
  const auto gap = std::find(is_used.begin(), is_used.end(), false);
  if (gap == is_used.end()) return absl::OkStatus();
  return vocab.Refuse("invalid_vocab", absl::StrCat("no token has the id ", gap - is_used.begin()));
}

absl::Status Tokenizer::ReadConfig(const std::string& dir, const FileCheck& check) {
  constexpr absl::string_view kName = "tokenizer_config.json";
  const absl::StatusOr<nlohmann::json> config = ReadTokenizerJson(absl::StrCat(dir, "/", kName), kName, check);
  if (absl::IsNotFound(config.status())) return absl::OkStatus();
  RETURN_IF_ERROR(config.status());
  ASSIGN_OR_RETURN(bos_token_, ReadTokenName(*config, "bos_token"));
  ASSIGN_OR_RETURN(eos_token_, ReadTokenName(*config, "eos_token"));
  for (const auto& [key, token] : {std::pair("bos_token", bos_token_), std::pair("eos_token", eos_token_)}) {
    if (token.empty() || TokenId(token).has_value()) continue;
    return absl::InvalidArgumentError(absl::StrCat(kName, ": inconsistent: ", key, ": not in tokenizer.json"));
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::CheckModel(int64_t num_embedding_rows, std::optional<int32_t> bos_id) const {
  if (vocab_size() > num_embedding_rows) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: vocab_mismatch: model.vocab: ", vocab_size(),
                                                   " ids, but the model embeds ", num_embedding_rows));
  }
  if (!bos_token_.empty() && bos_id.has_value() && TokenId(bos_token_) != bos_id) {
    return absl::InvalidArgumentError(
        "tokenizer_config.json: inconsistent: bos_token: not bos_token_id of config.json");
  }
  return absl::OkStatus();
}

int32_t Tokenizer::ComputeMaxTokenBytes() const {
  const bool unbounded =
      bpe_.SwallowsUnknown() || added_.strips_spaces() || pretokenizer_.removes_text() || normalizer_.max_shrink() == 0;
  if (unbounded) return INT32_MAX;
  size_t longest = 0;
  for (const auto& [spelling, id] : bpe_.vocab()) {
    longest = std::max(longest, pretokenizer_.is_byte_level() ? TokenBytes(id).size() : spelling.size());
  }
  for (const AddedToken& token : added_.tokens()) longest = std::max(longest, token.content.size());
  // An unknown character, or U+FFFD for one invalid byte of three, may be longer than any token.
  longest = std::max(longest, size_t{4});
  return static_cast<int32_t>(longest) * normalizer_.max_shrink();
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text) const {
  return EncodeMarked({ReplaceInvalidUtf8(text), ""});
}

std::vector<int32_t> Tokenizer::EncodeSegments(absl::Span<const TextSegment> segments) const {
  MarkedText text;
  for (const TextSegment& segment : segments) {
    text.text += ReplaceInvalidUtf8(segment.text);
    text.trusted.resize(text.text.size(), segment.trusted ? '\1' : '\0');
  }
  return EncodeMarked(text);
}

std::vector<int32_t> Tokenizer::EncodeMarked(const MarkedText& text) const {
  std::vector<int32_t> ids;
  Bpe::Scratch scratch;
  for (const AddedTokens::Span& span : added_.SplitRaw(text)) {
    if (span.id.has_value()) {
      ids.push_back(*span.id);
      continue;
    }
    const size_t size = span.end - span.begin;
    MarkedText plain{text.text.substr(span.begin, size), ""};
    if (!text.trusted.empty()) plain.trusted = text.trusted.substr(span.begin, size);
    EncodePlain(std::move(plain), /*starts_prompt=*/span.begin == 0, scratch, ids);
  }
  return ids;
}

void Tokenizer::EncodePlain(MarkedText text, bool starts_prompt, Bpe::Scratch& scratch,
                            std::vector<int32_t>& ids) const {
  text = normalizer_.Apply(std::move(text));
  for (const AddedTokens::Span& span : added_.SplitNormalized(text)) {
    if (span.id.has_value()) {
      ids.push_back(*span.id);
      continue;
    }
    const PieceText pieces =
        pretokenizer_.Apply(text.text.substr(span.begin, span.end - span.begin), starts_prompt && span.begin == 0);
    for (const PieceText::Piece& piece : pieces.pieces) bpe_.EncodePiece(pieces.Bytes(piece), scratch, ids);
  }
}

std::vector<int32_t> Tokenizer::AddSpecial(std::vector<int32_t> ids) const {
  ids.insert(ids.begin(), template_.prefix.begin(), template_.prefix.end());
  ids.insert(ids.end(), template_.suffix.begin(), template_.suffix.end());
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special) const {
  IncrementalDetokenizer detokenizer(*this, skip_special);
  std::string text = detokenizer.Push(ids);
  return text + detokenizer.Finish();
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  const std::optional<char> byte = decoder_.Byte(Spelling(id));
  return byte.has_value() ? std::string(1, *byte) : decoder_.Text(Spelling(id), /*is_first=*/false);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < vocab_size() && is_special_[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::TokenId(absl::string_view spelling) const {
  for (const auto* ids : {&added_ids_, &bpe_.vocab()}) {
    const auto found = ids->find(spelling);
    if (found != ids->end()) return found->second;
  }
  return std::nullopt;
}

}  // namespace weft
