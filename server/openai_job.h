// A completion under way: one generation for each prompt of the request, seen as one list of choices.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/generation_service.h"
#include "server/openai_request.h"
#include "server/openai_response.h"

namespace weft {

// Choices are numbered prompt by prompt: choice 0 of the second prompt comes after all n of the first. Owned by its
// answer; destruction cancels what still runs.
class OpenAiJob {
 public:
  // Parses the body and starts its generations; nothing runs if one of them is refused. Takes as long as tokenizing
  // does. `identity` tells what the body doesn't: request id, tenant, deadline.
  static absl::StatusOr<OpenAiJob> Start(GenerationService& service, OpenAiApi api, absl::string_view body,
                                         const GenerateRequest& identity, std::function<void()> wake);

  // What is new, as Generation::Take has it.
  std::vector<Delta> Take();
  bool done() const;
  Usage usage() const;

  bool stream() const { return stream_; }
  bool include_usage() const { return include_usage_; }
  int64_t num_choices() const { return choices_per_prompt_ * static_cast<int64_t>(generations_.size()); }
  OpenAiAnswer& answer() { return *answer_; }

 private:
  OpenAiJob() = default;

  std::vector<std::unique_ptr<Generation>> generations_;  // [prompts]
  int64_t choices_per_prompt_ = 1;
  bool stream_ = false;
  bool include_usage_ = false;
  std::unique_ptr<OpenAiAnswer> answer_;
};

}  // namespace weft
