#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/text/template_text.h"

namespace weft {

class TemplateDict;
class TemplateNamespace;
struct TemplateFunction;
struct TemplateLoop;
struct TemplateMacro;
struct TemplateSequence;

struct TemplateUndefined {};  // as Jinja's default Undefined: prints as nothing, most other uses fail
struct TemplateNone {};

// What an expression evaluates to. A closed set of plain data: nothing in it leads to the host program.
//
// Texts, sequences and dicts are immutable, so copies of a value share them; they can't form cycles. Namespaces and
// macros are mutable or refer back to scopes, so the render owns them and a value only borrows (a value never outlives
// its render). Nesting is bounded by the interpreter (see depth()), which is what bounds every recursion over values.
class TemplateValue {
 public:
  TemplateValue() = default;  // undefined

  static TemplateValue None() { return TemplateValue(Data(TemplateNone{})); }
  static TemplateValue Bool(bool value) { return TemplateValue(Data(value)); }
  static TemplateValue Int(int64_t value) { return TemplateValue(Data(value)); }
  static TemplateValue Float(double value) { return TemplateValue(Data(value)); }
  static TemplateValue Text(TemplateText text) {
    return TemplateValue(Data(std::make_shared<const TemplateText>(std::move(text))));
  }
  static TemplateValue Literal(absl::string_view text) { return Text(TemplateText(text, /*trusted=*/true)); }
  static TemplateValue Untrusted(absl::string_view text) { return Text(TemplateText(text, /*trusted=*/false)); }
  static TemplateValue List(std::vector<TemplateValue> items);
  static TemplateValue Tuple(std::vector<TemplateValue> items);
  static TemplateValue Sequence(std::shared_ptr<const TemplateSequence> sequence) {
    return TemplateValue(Data(std::move(sequence)));
  }
  static TemplateValue Dict(TemplateDict dict);
  static TemplateValue Namespace(TemplateNamespace* borrowed) { return TemplateValue(Data(borrowed)); }
  static TemplateValue Macro(const TemplateMacro* borrowed) { return TemplateValue(Data(borrowed)); }
  static TemplateValue Function(const TemplateFunction* function) { return TemplateValue(Data(function)); }
  static TemplateValue Loop(std::shared_ptr<const TemplateLoop> loop) { return TemplateValue(Data(std::move(loop))); }

  bool IsUndefined() const { return Is<TemplateUndefined>(); }
  bool IsNone() const { return Is<TemplateNone>(); }
  bool IsBool() const { return Is<bool>(); }
  bool IsInt() const { return Is<int64_t>(); }
  bool IsFloat() const { return Is<double>(); }
  bool IsText() const { return Is<std::shared_ptr<const TemplateText>>(); }

  // As Python has it, a bool is a number and an integer.
  bool IsIntegral() const { return IsBool() || IsInt(); }
  bool IsNumber() const { return IsIntegral() || IsFloat(); }
  int64_t ToInt() const {
    return IsBool() ? std::get<bool>(data_) : std::get<int64_t>(data_);
  }  // requires IsIntegral()
  double ToDouble() const { return IsFloat() ? std::get<double>(data_) : static_cast<double>(ToInt()); }  // IsNumber()
  bool AsBool() const { return std::get<bool>(data_); }
  const TemplateText& AsText() const { return *std::get<std::shared_ptr<const TemplateText>>(data_); }
  const std::string& bytes() const { return AsText().bytes(); }

  // Null when the value is of another kind.
  const TemplateSequence* AsSequence() const;
  const TemplateDict* AsDict() const;
  TemplateNamespace* AsNamespace() const;
  const TemplateMacro* AsMacro() const;
  const TemplateFunction* AsFunction() const;
  const TemplateLoop* AsLoop() const;

  // True when both are the same object (not merely equal).
  bool SameObject(const TemplateValue& other) const;

  // How deep sequences and dicts nest in this value; 0 for a scalar.
  int depth() const;

 private:
  using Data =
      std::variant<TemplateUndefined, TemplateNone, bool, int64_t, double, std::shared_ptr<const TemplateText>,
                   std::shared_ptr<const TemplateSequence>, std::shared_ptr<const TemplateDict>, TemplateNamespace*,
                   const TemplateMacro*, const TemplateFunction*, std::shared_ptr<const TemplateLoop>>;

  explicit TemplateValue(Data data) : data_(std::move(data)) {}

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(data_);
  }

  Data data_;
};

// Everything ordered. The kinds differ in what Python lets one do with them.
struct TemplateSequence {
  enum class Kind {
    kList,
    kTuple,
    kRange,     // has a length, can be indexed, can't be printed as JSON
    kView,      // dict.items() and friends: has a length, can't be indexed
    kIterator,  // what lazy filters return: no length, no index, always true, empty once walked
  };

  TemplateSequence(Kind sequence_kind, std::vector<TemplateValue> values);

  Kind kind;
  std::vector<TemplateValue> items;
  int depth;
  mutable bool consumed = false;  // of a kIterator; the one mutable bit, touched by the render's thread alone
};

// An ordered mapping. Keys are texts, numbers, bools and none; 1, 1.0 and true are one key, as in Python.
class TemplateDict {
 public:
  struct Item {
    TemplateValue key;
    TemplateValue value;
  };

  // Adds or replaces. False when `key` can't be a key.
  bool Set(TemplateValue key, TemplateValue value);

  // Null when absent, or when `key` can't be a key.
  const TemplateValue* Find(const TemplateValue& key) const;
  const TemplateValue* Find(absl::string_view key) const;

  const std::vector<Item>& items() const { return items_; }
  int depth() const { return depth_; }

 private:
  std::vector<Item> items_;
  absl::flat_hash_map<std::string, size_t> index_;  // TemplateHashKey(key) -> position in items_
  int depth_ = 1;
};

// Equal for keys that Python holds equal. Empty when the value can't be hashed.
std::string TemplateHashKey(const TemplateValue& value);

// The one object a template may change: {% set ns.x = ... %}. Owned by the render.
class TemplateNamespace {
 public:
  void Set(absl::string_view name, TemplateValue value);
  const TemplateValue* Find(absl::string_view name) const;  // null when absent

 private:
  absl::flat_hash_map<std::string, TemplateValue> attributes_;
};

// The variable `loop` of one iteration. Immutable: each iteration makes its own, all share the items.
struct TemplateLoop {
  std::shared_ptr<const TemplateSequence> items;
  size_t index0 = 0;
};

}  // namespace weft
