#include "server/text/template_lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_unicode.h"
#include "server/text/unicode.h"

namespace weft {
namespace {

using Token = TemplateToken;
using Kind = TemplateToken::Kind;

constexpr size_t kNotFound = absl::string_view::npos;

// All line ends become "\n", and one at the very end is dropped.
std::string NormalizeNewlines(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (absl::EndsWith(text, "\n")) text.pop_back();
  return text;
}

bool IsNameStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNameChar(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : owned_(NormalizeNewlines(source)), source_(owned_) {}

  absl::StatusOr<std::vector<Token>> Run();

 private:
  // Literal text up to the next tag, then the tag's opening.
  absl::Status LexText();
  absl::Status LexComment();
  absl::Status LexRaw(size_t body);
  // The inside of {{ }} or {% %}, and its closing.
  absl::Status LexCode(bool is_block);
  absl::Status LexCodeToken();
  absl::Status LexNumber();
  absl::Status LexString();
  absl::Status LexOperator();

  bool At(absl::string_view text) const { return absl::StartsWith(source_.substr(pos_), text); }
  bool CloseCode(bool is_block);
  size_t RawTagEnd(size_t open) const;
  size_t EndRawTag(size_t open) const;
  size_t SkipSpace(size_t offset) const;
  void MoveTo(size_t offset);
  // Emits text that ends where a tag opens, trimmed as the tag's sign asks.
  void EmitText(absl::string_view text, char sign, bool is_variable);
  // Passes a tag's end at `close`, with the white space that its sign or trim_blocks takes.
  void PassClose(size_t close, size_t close_size, char sign);
  void Emit(Kind kind, absl::string_view value) { tokens_.push_back({kind, std::string(value), line_}); }
  absl::Status Error(absl::string_view what) const { return TemplateInvalid(line_, what); }

  std::string owned_;
  absl::string_view source_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the text before pos_ ended a line
  std::vector<char> open_;     // brackets to be closed inside the current tag
  std::vector<Token> tokens_;
};

absl::StatusOr<std::vector<Token>> Lexer::Run() {
  while (pos_ < source_.size()) RETURN_IF_ERROR(LexText());
  Emit(Kind::kEnd, "");
  return std::move(tokens_);
}

void Lexer::MoveTo(size_t offset) {
  line_ += static_cast<int>(std::count(source_.begin() + pos_, source_.begin() + offset, '\n'));
  if (offset > pos_) line_starting_ = source_[offset - 1] == '\n';
  pos_ = offset;
}

size_t Lexer::SkipSpace(size_t offset) const {
  while (offset < source_.size()) {
    TemplateChar c = DecodeChar(source_, offset);
    if (!IsSpaceChar(c.code_point)) break;
    offset += c.num_bytes;
  }
  return offset;
}

// The start of the next {{, {% or {#.
size_t FindTag(absl::string_view source, size_t from) {
  for (size_t at = source.find('{', from); at != kNotFound; at = source.find('{', at + 1)) {
    if (at + 1 < source.size() && (source[at + 1] == '{' || source[at + 1] == '%' || source[at + 1] == '#')) return at;
  }
  return kNotFound;
}

char SignAt(absl::string_view source, size_t offset) {
  bool has_sign = offset < source.size() && (source[offset] == '-' || source[offset] == '+');
  return has_sign ? source[offset] : '\0';
}

absl::Status Lexer::LexText() {
  size_t open = FindTag(source_, pos_);
  if (open == kNotFound) {
    Emit(Kind::kText, source_.substr(pos_));
    MoveTo(source_.size());
    return absl::OkStatus();
  }
  char kind = source_[open + 1];
  char sign = SignAt(source_, open + 2);
  EmitText(source_.substr(pos_, open - pos_), sign, kind == '{');
  size_t raw_body = kind == '%' ? RawTagEnd(open) : kNotFound;
  MoveTo(open + (sign ? 3 : 2));
  if (raw_body != kNotFound) return LexRaw(raw_body);
  if (kind == '#') return LexComment();
  Emit(kind == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, "");
  return LexCode(kind == '%');
}

void Lexer::EmitText(absl::string_view text, char sign, bool is_variable) {
  if (sign == '-') {
    size_t keep = 0;
    for (size_t offset = 0; offset < text.size();) {
      TemplateChar c = DecodeChar(text, offset);
      offset += c.num_bytes;
      if (!IsSpaceChar(c.code_point)) keep = offset;
    }
    text = text.substr(0, keep);
  } else if (sign != '+' && !is_variable) {
    size_t newline = text.rfind('\n');
    size_t line_begin = newline == kNotFound ? 0 : newline + 1;
    bool whole_line = newline != kNotFound || line_starting_;
    if (whole_line && SkipSpace(static_cast<size_t>(text.data() - source_.data()) + line_begin) >=
                          static_cast<size_t>(text.data() - source_.data()) + text.size()) {
      text = text.substr(0, line_begin);
    }
  }
  if (!text.empty()) Emit(Kind::kText, text);
}

void Lexer::PassClose(size_t close, size_t close_size, char sign) {
  size_t end = close + close_size;
  if (sign == '-') {
    end = SkipSpace(end);
  } else if (sign == '\0' && end < source_.size() && source_[end] == '\n') {
    ++end;
  }
  MoveTo(end);
}

absl::Status Lexer::LexComment() {
  size_t close = source_.find("#}", pos_);
  if (close == kNotFound) return Error("a comment that isn't closed");
  char sign = close > pos_ ? SignAt(source_, close - 1) : '\0';
  PassClose(close, 2, sign);
  return absl::OkStatus();
}

// Where the body of a {% raw %} that opens at `open` begins; kNotFound when it is another tag.
size_t Lexer::RawTagEnd(size_t open) const {
  size_t at = SkipSpace(open + (SignAt(source_, open + 2) ? 3 : 2));
  if (!absl::StartsWith(source_.substr(at), "raw")) return kNotFound;
  at = SkipSpace(at + 3);
  if (absl::StartsWith(source_.substr(at), "-%}")) return SkipSpace(at + 3);
  return absl::StartsWith(source_.substr(at), "%}") ? at + 2 : kNotFound;
}

// Where the closing of a {% endraw %} that opens at `open` begins (its sign or its %}); kNotFound when it is another
// tag.
size_t Lexer::EndRawTag(size_t open) const {
  size_t at = SkipSpace(open + (SignAt(source_, open + 2) ? 3 : 2));
  if (!absl::StartsWith(source_.substr(at), "endraw")) return kNotFound;
  at = SkipSpace(at + 6);
  size_t close = at + (SignAt(source_, at) ? 1 : 0);
  return absl::StartsWith(source_.substr(close), "%}") ? at : kNotFound;
}

absl::Status Lexer::LexRaw(size_t body) {
  MoveTo(body);
  for (size_t open = source_.find("{%", body); open != kNotFound; open = source_.find("{%", open + 1)) {
    size_t close = EndRawTag(open);
    if (close == kNotFound) continue;
    EmitText(source_.substr(body, open - body), SignAt(source_, open + 2), /*is_variable=*/false);
    char sign = SignAt(source_, close);
    PassClose(close, sign ? 3 : 2, sign);
    return absl::OkStatus();
  }
  return Error("a raw block that isn't closed");
}

absl::Status Lexer::LexCode(bool is_block) {
  open_.clear();
  while (!CloseCode(is_block)) {
    if (pos_ >= source_.size()) return Error("a tag that isn't closed");
    size_t after_space = SkipSpace(pos_);
    if (after_space > pos_) {
      MoveTo(after_space);
    } else {
      RETURN_IF_ERROR(LexCodeToken());
    }
  }
  return absl::OkStatus();
}

bool Lexer::CloseCode(bool is_block) {
  if (!open_.empty()) return false;
  absl::string_view close = is_block ? "%}" : "}}";
  char sign = SignAt(source_, pos_);
  if (sign == '+' && !is_block) sign = '\0';
  if (!absl::StartsWith(source_.substr(std::min(source_.size(), pos_ + (sign ? 1 : 0))), close)) return false;
  Emit(is_block ? Kind::kBlockEnd : Kind::kVariableEnd, "");
  if (is_block || sign) {
    PassClose(pos_ + (sign ? 1 : 0), close.size(), sign);
  } else {
    MoveTo(pos_ + close.size());
  }
  return true;
}

absl::Status Lexer::LexCodeToken() {
  char c = source_[pos_];
  if (IsDigit(c)) return LexNumber();
  if (c == '"' || c == '\'') return LexString();
  if (!IsNameStart(c)) return LexOperator();
  size_t end = pos_;
  while (end < source_.size() && IsNameChar(source_[end])) ++end;
  Emit(Kind::kName, source_.substr(pos_, end - pos_));
  MoveTo(end);
  return absl::OkStatus();
}

// Digits with single "_" between them: the offset after them.
size_t SkipDigits(absl::string_view source, size_t offset) {
  while (offset < source.size() && IsDigit(source[offset])) {
    ++offset;
    if (offset + 1 < source.size() && source[offset] == '_' && IsDigit(source[offset + 1])) ++offset;
  }
  return offset;
}

absl::Status Lexer::LexNumber() {
  size_t end = SkipDigits(source_, pos_);
  Kind kind = Kind::kInteger;
  bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';  // x.0.1: indices, not a float
  if (!after_dot && end + 1 < source_.size() && source_[end] == '.' && IsDigit(source_[end + 1])) {
    kind = Kind::kFloat;
    end = SkipDigits(source_, end + 1);
  }
  if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
    size_t digits = end + 1 + (SignAt(source_, end + 1) ? 1 : 0);
    if (digits < source_.size() && IsDigit(source_[digits])) {
      kind = Kind::kFloat;
      end = SkipDigits(source_, digits);
    }
  }
  std::string value = absl::StrReplaceAll(source_.substr(pos_, end - pos_), {{"_", ""}});
  int64_t number = 0;
  if (kind == Kind::kInteger && (!absl::SimpleAtoi(value, &number) || (value[0] == '0' && number != 0))) {
    return Error("an integer that isn't a decimal of 64 bits");
  }
  Emit(kind, value);
  MoveTo(end);
  return absl::OkStatus();
}

// Reads `count` digits of `base` at `offset`; false when they aren't there.
bool ReadCode(absl::string_view text, size_t offset, size_t count, int base, uint32_t* code) {
  if (offset + count > text.size()) return false;
  *code = 0;
  for (char c : text.substr(offset, count)) {
    int digit = IsDigit(c) ? c - '0' : absl::ascii_isxdigit(static_cast<unsigned char>(c)) ? (c | 0x20) - 'a' + 10 : 99;
    if (digit >= base) return false;
    *code = *code * static_cast<uint32_t>(base) + static_cast<uint32_t>(digit);
  }
  return true;
}

// The escape of one character after a backslash, or 0.
char SimpleEscape(char c) {
  switch (c) {
    case 'a':
      return '\a';
    case 'b':
      return '\b';
    case 'f':
      return '\f';
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'v':
      return '\v';
    case '\\':
    case '\'':
    case '"':
      return c;
    default:
      return '\0';
  }
}

// Resolves Python's escapes. False when one is malformed or names half a surrogate pair.
bool Unescape(absl::string_view raw, std::string& out) {
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out.push_back(raw[i]);
      continue;
    }
    char kind = raw[++i];  // the lexer lets no string end in a lone backslash
    uint32_t code = 0;
    size_t width = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (width > 0) {
      if (!ReadCode(raw, i + 1, width, 16, &code) || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
      AppendUtf8(code, out);
      i += width;
    } else if (kind >= '0' && kind <= '7') {
      size_t digits = 1;
      while (digits < 3 && i + digits < raw.size() && raw[i + digits] >= '0' && raw[i + digits] <= '7') ++digits;
      ReadCode(raw, i, digits, 8, &code);
      AppendUtf8(code, out);
      i += digits - 1;
    } else if (char escaped = SimpleEscape(kind)) {
      out.push_back(escaped);
    } else if (kind == 'N') {
      return false;
    } else if (kind != '\n') {
      out.push_back('\\');
      out.push_back(kind);
    }
  }
  return true;
}

absl::Status Lexer::LexString() {
  char quote = source_[pos_];
  size_t end = pos_ + 1;
  while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2u : 1u;
  if (end >= source_.size()) return Error("a string that isn't closed");
  std::string value;
  if (!Unescape(source_.substr(pos_ + 1, end - pos_ - 1), value)) return Error("a bad escape in a string");
  Emit(Kind::kString, value);
  MoveTo(end + 1);
  return absl::OkStatus();
}

absl::Status Lexer::LexOperator() {
  static constexpr absl::string_view kTwoChars[] = {"//", "**", "==", "!=", ">=", "<="};
  size_t size = 1;
  for (absl::string_view op : kTwoChars) {
    if (At(op)) size = 2;
  }
  absl::string_view op = source_.substr(pos_, size);
  if (size == 1 && absl::string_view("+-/*%~[](){}><=.:|,;").find(op[0]) == kNotFound) {
    return Error("an unexpected character");
  }
  if (op == "(" || op == "[" || op == "{") open_.push_back(op == "(" ? ')' : op == "[" ? ']' : '}');
  if (op == ")" || op == "]" || op == "}") {
    if (open_.empty() || open_.back() != op[0]) return Error(absl::StrCat("an unexpected '", op, "'"));
    open_.pop_back();
  }
  Emit(Kind::kOperator, op);
  MoveTo(pos_ + size);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<TemplateToken>> LexTemplate(absl::string_view source) { return Lexer(source).Run(); }

}  // namespace weft
