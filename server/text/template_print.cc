#include "server/text/template_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/status_macros.h"
#include "server/text/template_errors.h"
#include "server/text/template_unicode.h"

namespace weft {
namespace {

using Value = TemplateValue;
using Kind = TemplateSequence::Kind;

// Walks a value once and appends to a text. Recursion is bounded by the depth of values.
class Printer {
 public:
  explicit Printer(TemplateBudget& budget) : budget_(budget) {}

  TemplateText Take() { return std::move(out_); }
  absl::Status Repr(const Value& value);

 private:
  absl::Status ReprSequence(const TemplateSequence& sequence);
  absl::Status ReprDict(const TemplateDict& dict);
  void ReprText(const TemplateText& text);
  void Put(absl::string_view bytes) { out_.Append(bytes, /*trusted=*/false); }

  TemplateBudget& budget_;
  TemplateText out_;
};

std::string Scalar(const Value& value) {
  if (value.IsNone()) return "None";
  if (value.IsBool()) return value.AsBool() ? "True" : "False";
  if (value.IsInt()) return absl::StrCat(value.ToInt());
  return PythonFloat(value.ToDouble());
}

absl::Status Printer::Repr(const Value& value) {
  RETURN_IF_ERROR(budget_.Spend(1));
  if (value.IsUndefined()) {
    Put("Undefined");
  } else if (value.IsNone() || value.IsNumber()) {
    Put(Scalar(value));
  } else if (value.IsText()) {
    RETURN_IF_ERROR(budget_.SpendGrowth(out_.size(), value.AsText().size()));
    RETURN_IF_ERROR(budget_.SpendChars(value.AsText().size()));
    ReprText(value.AsText());
  } else if (const TemplateSequence* sequence = value.AsSequence()) {
    return ReprSequence(*sequence);
  } else if (const TemplateDict* dict = value.AsDict()) {
    return ReprDict(*dict);
  } else {
    return TemplateFailed("this kind of value can't be printed");
  }
  return absl::OkStatus();
}

absl::Status Printer::ReprSequence(const TemplateSequence& sequence) {
  if (sequence.kind != Kind::kList && sequence.kind != Kind::kTuple) {
    return TemplateFailed("a lazy sequence can't be printed; use |list or |join");
  }
  bool is_list = sequence.kind == Kind::kList;
  Put(is_list ? "[" : "(");
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) Put(", ");
    RETURN_IF_ERROR(Repr(sequence.items[i]));
  }
  if (!is_list && sequence.items.size() == 1) Put(",");
  Put(is_list ? "]" : ")");
  return absl::OkStatus();
}

absl::Status Printer::ReprDict(const TemplateDict& dict) {
  Put("{");
  bool first = true;
  for (const TemplateDict::Item& item : dict.items()) {
    if (!first) Put(", ");
    first = false;
    RETURN_IF_ERROR(Repr(item.key));
    Put(": ");
    RETURN_IF_ERROR(Repr(item.value));
  }
  Put("}");
  return absl::OkStatus();
}

// Control characters and separators that Python's repr() escapes. Unassigned code points, which it escapes too, are
// printed.
bool IsPrintable(uint32_t c) {
  if (c == ' ') return true;
  return c >= 0x20 && c != 0x7F && !(c >= 0x80 && c <= 0xA0) && c != 0xAD && !IsSpaceChar(c) &&
         !(c >= 0x200B && c <= 0x200F) && !(c >= 0x202A && c <= 0x202E) && c != 0xFEFF && !(c >= 0xE000 && c <= 0xF8FF);
}

std::string ReprEscape(uint32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      break;
  }
  if (c < 0x100) return absl::StrFormat("\\x%02x", c);
  if (c < 0x10000) return absl::StrFormat("\\u%04x", c);
  return absl::StrFormat("\\U%08x", c);
}

void Printer::ReprText(const TemplateText& text) {
  bool has_single = text.bytes().find('\'') != std::string::npos;
  bool has_double = text.bytes().find('"') != std::string::npos;
  char quote = has_single && !has_double ? '"' : '\'';
  Put(absl::string_view(&quote, 1));
  size_t offset = 0;
  while (offset < text.size()) {
    TemplateChar c = DecodeChar(text.bytes(), offset);
    if (c.code_point == static_cast<uint32_t>(quote) || c.code_point == '\\') {
      Put(absl::StrCat("\\", std::string(1, static_cast<char>(c.code_point))));
    } else if (IsPrintable(c.code_point)) {
      out_.AppendRange(text, offset, offset + c.num_bytes);
    } else {
      Put(ReprEscape(c.code_point));
    }
    offset += c.num_bytes;
  }
  Put(absl::string_view(&quote, 1));
}

// json.dumps with the pure-Python layout rules. Recursion is bounded by the depth of values.
class JsonPrinter {
 public:
  JsonPrinter(const TemplateJsonOptions& options, TemplateBudget& budget) : options_(options), budget_(budget) {}

  TemplateText Take() { return std::move(out_); }
  absl::Status Write(const Value& value, int level);

 private:
  absl::Status WriteSequence(const TemplateSequence& sequence, int level);
  absl::Status WriteDict(const TemplateDict& dict, int level);
  absl::Status WriteKey(const Value& key);
  absl::Status WriteText(const TemplateText& text);
  absl::Status NewLine(int level);
  void Put(absl::string_view bytes) { out_.Append(bytes, /*trusted=*/false); }

  const TemplateJsonOptions& options_;
  TemplateBudget& budget_;
  TemplateText out_;
};

std::string JsonScalar(const Value& value) {
  if (value.IsNone()) return "null";
  if (value.IsBool()) return value.AsBool() ? "true" : "false";
  if (value.IsInt()) return absl::StrCat(value.ToInt());
  double number = value.ToDouble();
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
  return PythonFloat(number);
}

absl::Status JsonPrinter::Write(const Value& value, int level) {
  RETURN_IF_ERROR(budget_.Spend(1));
  if (value.IsNone() || value.IsNumber()) {
    Put(JsonScalar(value));
    return absl::OkStatus();
  }
  if (value.IsText()) return WriteText(value.AsText());
  if (const TemplateDict* dict = value.AsDict()) return WriteDict(*dict, level);
  const TemplateSequence* sequence = value.AsSequence();
  if (sequence && (sequence->kind == Kind::kList || sequence->kind == Kind::kTuple)) {
    return WriteSequence(*sequence, level);
  }
  return TemplateFailed("tojson of a value that JSON doesn't have");
}

absl::Status JsonPrinter::NewLine(int level) {
  if (!options_.indent) return absl::OkStatus();
  size_t width = options_.indent->size() * static_cast<size_t>(level);
  RETURN_IF_ERROR(budget_.SpendGrowth(out_.size(), width));
  Put("\n");
  for (int i = 0; i < level; ++i) Put(*options_.indent);
  return absl::OkStatus();
}

absl::Status JsonPrinter::WriteSequence(const TemplateSequence& sequence, int level) {
  Put("[");
  for (size_t i = 0; i < sequence.items.size(); ++i) {
    if (i > 0) Put(options_.item_separator);
    RETURN_IF_ERROR(NewLine(level + 1));
    RETURN_IF_ERROR(Write(sequence.items[i], level + 1));
  }
  if (!sequence.items.empty()) RETURN_IF_ERROR(NewLine(level));
  Put("]");
  return absl::OkStatus();
}

absl::Status JsonPrinter::WriteDict(const TemplateDict& dict, int level) {
  std::vector<const TemplateDict::Item*> items;
  for (const TemplateDict::Item& item : dict.items()) items.push_back(&item);
  if (options_.sort_keys) {
    for (const TemplateDict::Item* item : items) {
      if (!item->key.IsText()) return TemplateFailed("tojson sorts text keys only");
    }
    std::sort(items.begin(), items.end(), [](const auto* a, const auto* b) { return a->key.bytes() < b->key.bytes(); });
  }
  Put("{");
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) Put(options_.item_separator);
    RETURN_IF_ERROR(NewLine(level + 1));
    RETURN_IF_ERROR(WriteKey(items[i]->key));
    Put(options_.key_separator);
    RETURN_IF_ERROR(Write(items[i]->value, level + 1));
  }
  if (!items.empty()) RETURN_IF_ERROR(NewLine(level));
  Put("}");
  return absl::OkStatus();
}

absl::Status JsonPrinter::WriteKey(const Value& key) {
  if (key.IsText()) return WriteText(key.AsText());
  if (key.IsUndefined()) return TemplateFailed("tojson of an undefined key");
  Put(absl::StrCat("\"", JsonScalar(key), "\""));
  return absl::OkStatus();
}

std::string Utf16Escape(uint32_t c) {
  if (c < 0x10000) return absl::StrFormat("\\u%04x", c);
  return absl::StrFormat("\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10), 0xDC00 + ((c - 0x10000) & 0x3FF));
}

// The escape of `c`, or empty when it stands for itself.
std::string JsonEscape(uint32_t c, bool ensure_ascii) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    default:
      break;
  }
  bool plain = c >= 0x20 && (c < 0x7F || !ensure_ascii || c == 0x7F);
  return plain ? "" : Utf16Escape(c);
}

absl::Status JsonPrinter::WriteText(const TemplateText& text) {
  RETURN_IF_ERROR(budget_.SpendGrowth(out_.size(), text.size()));
  RETURN_IF_ERROR(budget_.SpendChars(text.size()));
  Put("\"");
  size_t plain_begin = 0;
  for (size_t offset = 0; offset < text.size();) {
    TemplateChar c = DecodeChar(text.bytes(), offset);
    std::string escape = JsonEscape(c.code_point, options_.ensure_ascii);
    if (!escape.empty()) {
      out_.AppendRange(text, plain_begin, offset);
      Put(escape);
      plain_begin = offset + c.num_bytes;
    }
    offset += c.num_bytes;
  }
  out_.AppendRange(text, plain_begin, text.size());
  Put("\"");
  return absl::OkStatus();
}

}  // namespace

std::string PythonFloat(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  std::string scientific(buffer, end);  // [-]d[.ddd]e[+-]dd
  size_t e = scientific.find('e');
  int exponent = std::atoi(scientific.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return scientific;
  std::string sign = scientific[0] == '-' ? "-" : "";
  std::string digits = scientific.substr(sign.size(), e - sign.size());
  if (digits.size() > 1) digits.erase(1, 1);
  if (exponent < 0) return absl::StrCat(sign, "0.", std::string(static_cast<size_t>(-exponent - 1), '0'), digits);
  size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return absl::StrCat(sign, digits, std::string(whole - digits.size(), '0'), ".0");
  return absl::StrCat(sign, digits.substr(0, whole), ".", digits.substr(whole));
}

absl::StatusOr<TemplateText> TemplateStr(const TemplateValue& value, TemplateBudget& budget) {
  if (value.IsText()) return value.AsText();
  if (value.IsUndefined()) return TemplateText();
  Printer printer(budget);
  RETURN_IF_ERROR(printer.Repr(value));
  TemplateText text = printer.Take();
  RETURN_IF_ERROR(budget.SpendText(text.size()));
  return text;
}

absl::StatusOr<TemplateText> TemplateJson(const TemplateValue& value, const TemplateJsonOptions& options,
                                          TemplateBudget& budget) {
  JsonPrinter printer(options, budget);
  RETURN_IF_ERROR(printer.Write(value, 0));
  TemplateText text = printer.Take();
  RETURN_IF_ERROR(budget.SpendText(text.size()));
  return text;
}

}  // namespace weft
