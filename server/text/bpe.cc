#include "server/text/bpe.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/unicode.h"
#include "server/text/unicode_byte_alphabet.h"

namespace weft {
namespace {

constexpr size_t kMaxVocab = 4'000'000;
constexpr size_t kMaxMerges = 8'000'000;
constexpr size_t kMaxTokenBytes = 1024;

constexpr int32_t kNone = -1;
constexpr int32_t kRemoved = -1;
constexpr int32_t kNoToken = -1;
constexpr uint32_t kNoMerge = UINT32_MAX;

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::string Quoted(absl::string_view token) { return absl::StrCat("\"", absl::CHexEscape(token), "\""); }

}  // namespace

absl::StatusOr<Bpe> Bpe::FromJson(const JsonNode& model, BpeSymbols symbols) {
  Bpe bpe;
  bpe.kind_ = symbols;
  bpe.bytes_.fill(kNoToken);
  RETURN_IF_ERROR(bpe.ReadOptions(model));
  RETURN_IF_ERROR(bpe.ReadVocab(model.Child("vocab")));
  RETURN_IF_ERROR(bpe.ReadMerges(model.Child("merges")));
  if (symbols == BpeSymbols::kBytes) {
    bpe.IndexBytes();
  } else {
    bpe.IndexCharacters();
    if (bpe.byte_fallback_) RETURN_IF_ERROR(bpe.ReadByteTokens(model.Child("vocab")));
  }
  RETURN_IF_ERROR(bpe.CheckUnknown(model));
  return bpe;
}

absl::Status Bpe::ReadOptions(const JsonNode& model) {
  // Files of before 2021 have no type.
  ASSIGN_OR_RETURN(const std::string type, model.GetString("type", "BPE"));
  if (type != "BPE") return model.Child("type").Refuse("unsupported_component", "only BPE models are supported");
  const JsonNode dropout = model.Child("dropout");
  if (!dropout.IsNull() && dropout.value() != 0) {
    return dropout.Refuse("unsupported_component", "random merges can't be served");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ASSIGN_OR_RETURN(const std::string text, model.GetString(affix, ""));
    if (!text.empty()) return model.Child(affix).Refuse("unsupported_component", "must be empty or null");
  }
  ASSIGN_OR_RETURN(unk_token_, model.GetString("unk_token", ""));
  ASSIGN_OR_RETURN(byte_fallback_, model.GetBool("byte_fallback", false));
  ASSIGN_OR_RETURN(fuse_unk_, model.GetBool("fuse_unk", false));
  ASSIGN_OR_RETURN(ignore_merges_, model.GetBool("ignore_merges", false));
  return absl::OkStatus();
}

absl::Status Bpe::ReadVocab(const JsonNode& vocab) {
  if (!vocab.value().is_object() || vocab.value().empty()) {
    return vocab.Refuse("invalid_vocab", "must be an object of token: id");
  }
  if (vocab.value().size() > kMaxVocab) return vocab.Refuse("too_large", absl::StrCat("more than ", kMaxVocab));
  vocab_.reserve(vocab.value().size());
  for (const auto& [token, id] : vocab.value().items()) {
    if (token.size() > kMaxTokenBytes) {
      return vocab.Refuse("invalid_token",
                          absl::StrCat("a token of ", token.size(), " bytes, at most ", kMaxTokenBytes));
    }
    if (!id.is_number_integer() || id < 0 || id >= kMaxVocab) {
      return vocab.Refuse("invalid_vocab", absl::StrCat("id of ", Quoted(token), " must be in 0..", kMaxVocab - 1));
    }
    vocab_.emplace(token, id.get<int32_t>());
  }
  const auto unk = vocab_.find(unk_token_);
  if (!unk_token_.empty() && unk != vocab_.end()) unk_id_ = unk->second;
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const JsonNode& merges) {
  if (!merges.value().is_array()) return merges.Refuse("invalid_merge", "must be an array");
  if (merges.value().size() > kMaxMerges) return merges.Refuse("too_large", absl::StrCat("more than ", kMaxMerges));
  merges_.reserve(merges.value().size());
  uint32_t rank = 0;
  for (const nlohmann::json& merge : merges.value()) {
    std::string left, right;
    if (merge.is_string()) {
      const std::string& text = merge.get_ref<const std::string&>();
      const size_t space = text.find(' ');
      if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
        return merges.Element(rank).Refuse("invalid_merge", "must be two tokens with a space between");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {
      return merges.Element(rank).Refuse("invalid_merge", "must be \"left right\" or [left, right]");
    }
    RETURN_IF_ERROR(AddMerge(merges, rank, left, right));
    ++rank;
  }
  return absl::OkStatus();
}

absl::Status Bpe::AddMerge(const JsonNode& merges, uint32_t rank, absl::string_view left, absl::string_view right) {
  const std::string merged = absl::StrCat(left, right);
  for (const absl::string_view token : {left, right, absl::string_view(merged)}) {
    if (!vocab_.contains(token)) {
      return merges.Element(rank).Refuse("invalid_merge", absl::StrCat(Quoted(token), " is not in model.vocab"));
    }
  }
  // A pair that is listed twice has its last rank, as in the `tokenizers` package.
  merges_.insert_or_assign(PairKey(vocab_.at(left), vocab_.at(right)), Merge{rank, vocab_.at(merged)});
  return absl::OkStatus();
}

absl::Status Bpe::ReadByteTokens(const JsonNode& vocab) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string token = absl::StrFormat("<0x%02X>", byte);
    const auto found = vocab_.find(token);
    if (found == vocab_.end()) {
      return vocab.Refuse("invalid_vocab", absl::StrCat("byte_fallback needs all of <0x00> to <0xFF>, no ", token));
    }
    bytes_[static_cast<size_t>(byte)] = found->second;
  }
  for (const auto& [token, id] : vocab_) {
    if (token.size() != 6 || token.compare(0, 3, "<0x") != 0 || token.back() != '>') continue;
    if (!absl::ascii_isxdigit(static_cast<unsigned char>(token[3])) ||
        !absl::ascii_isxdigit(static_cast<unsigned char>(token[4]))) {
      return vocab.Refuse("invalid_token", absl::StrCat(Quoted(token), " looks like a byte and isn't one"));
    }
  }
  return absl::OkStatus();
}

void Bpe::IndexCharacters() {
  for (const auto& [token, id] : vocab_) {
    if (token.empty()) continue;
    const Utf8Char first = DecodeValidUtf8(token, 0);
    if (static_cast<size_t>(first.num_bytes) == token.size()) characters_.emplace(first.code_point, id);
  }
  if (ignore_merges_) pieces_ = vocab_;
}

void Bpe::IndexBytes() {
  for (const auto& [token, id] : vocab_) {
    const std::optional<std::string> bytes = BytesOfSpelling(token);
    if (!bytes.has_value()) continue;
    if (bytes->size() == 1) bytes_[static_cast<uint8_t>(bytes->front())] = id;
    if (ignore_merges_) pieces_.emplace(*bytes, id);
  }
}

absl::Status Bpe::CheckUnknown(const JsonNode& model) const {
  const bool has_all_bytes = std::find(bytes_.begin(), bytes_.end(), kNoToken) == bytes_.end();
  if (!has_all_bytes && byte_fallback_) {
    return model.Child("byte_fallback").Refuse("unsupported_component", "with a byte-level alphabet that lacks bytes");
  }
  if (!has_all_bytes && !unk_token_.empty() && !unk_id_.has_value()) {
    return model.Child("unk_token").Refuse("invalid_vocab", absl::StrCat(Quoted(unk_token_), " is not in model.vocab"));
  }
  return absl::OkStatus();
}

bool Bpe::SwallowsUnknown() const {
  const bool has_all_bytes = std::find(bytes_.begin(), bytes_.end(), kNoToken) == bytes_.end();
  return !has_all_bytes && (fuse_unk_ || !unk_id_.has_value());
}

void Bpe::Reserve(const absl::flat_hash_set<int32_t>& ids) {
  absl::erase_if(pieces_, [&](const auto& piece) { return ids.contains(piece.second); });
  absl::erase_if(characters_, [&](const auto& character) { return ids.contains(character.second); });
  absl::erase_if(merges_, [&](const auto& merge) { return ids.contains(merge.second.id); });
}

void Bpe::EncodePiece(absl::string_view piece, Scratch& scratch, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const auto whole = pieces_.find(piece);
    if (whole != pieces_.end()) {
      ids.push_back(whole->second);
      return;
    }
  }
  scratch.symbols.clear();
  AppendSymbols(piece, scratch.symbols);
  if (scratch.symbols.size() > 1) MergeAll(scratch);
  for (const Symbol& symbol : scratch.symbols) {
    if (symbol.id != kRemoved) ids.push_back(symbol.id);
  }
}

void Bpe::AppendSymbols(absl::string_view piece, std::vector<Symbol>& symbols) const {
  for (size_t pos = 0; pos < piece.size();) {
    const size_t num_bytes =
        kind_ == BpeSymbols::kBytes ? 1 : static_cast<size_t>(DecodeValidUtf8(piece, pos).num_bytes);
    AppendCharacter(piece.substr(pos, num_bytes), symbols);
    pos += num_bytes;
  }
  const auto size = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < size; ++i) {
    symbols[static_cast<size_t>(i)].prev = i - 1;
    symbols[static_cast<size_t>(i)].next = i + 1 == size ? kNone : i + 1;
  }
}

void Bpe::AppendCharacter(absl::string_view character, std::vector<Symbol>& symbols) const {
  const auto append = [&symbols](int32_t id) { symbols.push_back({id, kNone, kNone, kNoMerge, kNoToken}); };
  const auto byte_token = [this](char byte) { return bytes_[static_cast<uint8_t>(byte)]; };
  if (kind_ == BpeSymbols::kBytes) {
    if (byte_token(character[0]) != kNoToken) return append(byte_token(character[0]));
  } else {
    const auto found = characters_.find(DecodeValidUtf8(character, 0).code_point);
    if (found != characters_.end()) return append(found->second);
    if (byte_fallback_) {
      for (const char byte : character) append(byte_token(byte));
      return;
    }
  }
  // Without an unknown token, the character is dropped, as in the `tokenizers` package.
  if (!unk_id_.has_value()) return;
  const bool fused = fuse_unk_ && !symbols.empty() && symbols.back().id == *unk_id_;
  if (!fused) append(*unk_id_);
}

void Bpe::FindMerge(size_t i, Scratch& scratch) const {
  Symbol& symbol = scratch.symbols[i];
  symbol.rank = kNoMerge;
  if (symbol.next == kNone) return;
  const auto merge = merges_.find(PairKey(symbol.id, scratch.symbols[static_cast<size_t>(symbol.next)].id));
  if (merge == merges_.end()) return;
  symbol.rank = merge->second.rank;
  symbol.merged = merge->second.id;
  scratch.heap.push_back(static_cast<uint64_t>(symbol.rank) << 32 | i);
}

void Bpe::MergeAll(Scratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<uint64_t>& heap = scratch.heap;  // rank << 32 | index: lowest rank first, then leftmost
  const auto requeue = [&](size_t i) {
    const size_t size = heap.size();
    FindMerge(i, scratch);
    if (heap.size() > size) std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  heap.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) FindMerge(i, scratch);
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const size_t i = heap.front() & UINT32_MAX;
    const auto rank = static_cast<uint32_t>(heap.front() >> 32);
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    Symbol& left = symbols[i];
    if (left.id == kRemoved || left.rank != rank) continue;  // an entry from before a neighbour changed
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = left.merged;
    left.next = right.next;
    right.id = kRemoved;
    if (left.next != kNone) symbols[static_cast<size_t>(left.next)].prev = static_cast<int32_t>(i);
    requeue(i);
    if (left.prev != kNone) requeue(static_cast<size_t>(left.prev));
  }
}

}  // namespace weft
