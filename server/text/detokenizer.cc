#include "server/text/detokenizer.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

void AppendReplacements(size_t n, std::string& out) {
  for (size_t i = 0; i < n; ++i) out.append(kReplacementUtf8.data(), kReplacementUtf8.size());
}

}  // namespace

IncrementalDetokenizer::IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special), num_to_strip_(tokenizer.decoder().num_stripped()) {}

std::string IncrementalDetokenizer::Push(absl::Span<const int32_t> ids) {
  std::string out;
  for (const int32_t id : ids) Append(id, out);
  return Strip(std::move(out));
}

std::string IncrementalDetokenizer::Finish() {
  std::string out;
  if (tokenizer_.decoder().bytes() == TokenizerDecoder::Bytes::kStream) {
    out = ReplaceInvalidUtf8(std::exchange(held_, ""));
  } else {
    EndRun(out);
  }
  return Strip(std::move(out));
}

void IncrementalDetokenizer::Append(int32_t id, std::string& out) {
  if (id < 0 || id >= tokenizer_.vocab_size()) return;
  if (skip_special_ && tokenizer_.IsSpecial(id)) return;
  const TokenizerDecoder& decoder = tokenizer_.decoder();
  const bool is_first = std::exchange(is_first_, false);
  if (const std::optional<char> byte = decoder.Byte(tokenizer_.Spelling(id))) return AppendToRun(*byte, out);
  const std::string text = decoder.Text(tokenizer_.Spelling(id), is_first);
  if (decoder.bytes() == TokenizerDecoder::Bytes::kStream) return AppendStream(text, out);
  EndRun(out);
  out += text;
}

void IncrementalDetokenizer::AppendStream(const std::string& bytes, std::string& out) {
  held_ += bytes;
  size_t pos = 0;
  while (pos < held_.size()) {
    const Utf8Scan scan = ScanUtf8(held_, pos);
    if (scan.prefix == Utf8Prefix::kIncomplete) break;
    if (scan.prefix == Utf8Prefix::kInvalid) AppendReplacements(1, out);
    if (scan.prefix == Utf8Prefix::kCharacter) out.append(held_, pos, static_cast<size_t>(scan.num_bytes));
    pos += static_cast<size_t>(scan.num_bytes);
  }
  held_.erase(0, pos);
}

void IncrementalDetokenizer::AppendToRun(char byte, std::string& out) {
  held_ += byte;
  while (!run_is_broken_ && num_checked_ < held_.size()) {
    const Utf8Scan scan = ScanUtf8(held_, num_checked_);
    if (scan.prefix == Utf8Prefix::kIncomplete) return;
    run_is_broken_ = scan.prefix == Utf8Prefix::kInvalid;
    num_checked_ += static_cast<size_t>(scan.num_bytes);
  }
  if (!run_is_broken_) return;
  AppendReplacements(held_.size(), out);
  held_.clear();
}

void IncrementalDetokenizer::EndRun(std::string& out) {
  if (IsValidUtf8(held_)) {
    out += held_;
  } else {
    AppendReplacements(held_.size(), out);
  }
  held_.clear();
  num_checked_ = 0;
  run_is_broken_ = false;
}

std::string IncrementalDetokenizer::Strip(std::string out) {
  absl::string_view rest = out;
  while (num_to_strip_ > 0 && !rest.empty()) {
    num_to_strip_ = absl::ConsumePrefix(&rest, tokenizer_.decoder().stripped()) ? num_to_strip_ - 1 : 0;
  }
  return rest.size() == out.size() ? out : std::string(rest);
}

}  // namespace weft
