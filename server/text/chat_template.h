#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "server/text/template_ast.h"
#include "server/text/template_budget.h"
#include "server/text/text_segment.h"

namespace weft {

// A model's chat template: the Jinja program that turns messages into the prompt the model was trained on. Parsed once,
// from the operator's files alone; never from a request.
//
// The language is the subset of Jinja that published chat templates use, with the meaning it has in transformers
// (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls). It can reach nothing but its inputs, the
// clock it is given and its own variables, and each render has a budget. Known differences: integers have 64 bits;
// strftime_now is in UTC; upper() and lower() know Latin, Greek and Cyrillic; ranges, dict views and methods can't be
// printed; a loop's `if` is judged for all items before the first turn; `safe` has no effect on later text.
//
// Immutable once parsed, so any number of threads may render at the same time.
class ChatTemplate {
 public:
  // `bos_token` and `eos_token` are what the template's variables of these names hold; empty: undefined. Errors are
  // InvalidArgument, "template_invalid: line N: ..." or "template_unsupported: line N: ...".
  static absl::StatusOr<ChatTemplate> Parse(absl::string_view source, std::string bos_token, std::string eos_token,
                                            const TemplateLimits& limits = {});

  // Renders `inputs`, an object with "messages", optionally "tools", "documents", "add_generation_prompt", and whatever
  // else the operator lets requests set. `now` is the clock of strftime_now.
  //
  // The segments, joined, are the prompt. What the template's source, bos_token or eos_token wrote is trusted; every
  // string of `inputs` stays untrusted through all filters, except a message's "role" when it is one of the known roles
  // (templates build markers such as <|user|> from it). Neighbouring segments differ in trust.
  //
  // Errors: "template_rejected: ..." (the template called raise_exception) and "template_failed: line N: ..." (Jinja
  // would raise too), both InvalidArgument; "template_budget: ..." as ResourceExhausted. None quotes the inputs.
  absl::StatusOr<std::vector<TextSegment>> Render(const nlohmann::ordered_json& inputs, absl::Time now) const;

 private:
  ChatTemplate(TemplateBody body, std::string bos_token, std::string eos_token, const TemplateLimits& limits);

  std::shared_ptr<const TemplateBody> body_;  // shared by copies of this template
  std::string bos_token_;
  std::string eos_token_;
  TemplateLimits limits_;
};

}  // namespace weft
