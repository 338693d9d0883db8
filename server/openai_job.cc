#include "server/openai_job.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/limits.h"

namespace weft {

absl::StatusOr<OpenAiJob> OpenAiJob::Start(GenerationService& service, OpenAiApi api, absl::string_view body,
                                           const GenerateRequest& identity, std::function<void()> wake) {
  ASSIGN_OR_RETURN(const Json json, ParseJsonObject(body));
  ASSIGN_OR_RETURN(OpenAiRequest parsed,
                   api == OpenAiApi::kChat ? ParseChatRequest(json) : ParseCompletionRequest(json));
  const GenerateRequest& first = parsed.prompts.front();
  OpenAiAnswerOptions options;
  options.api = api;
  options.model = first.model.empty() ? service.model().names.front() : first.model;
  options.fingerprint = service.model().fingerprint;
  options.created = absl::Now();
  options.logprobs = first.num_logprobs.has_value();
  options.include_usage = parsed.include_usage;

  OpenAiJob job;
  job.stream_ = parsed.stream;
  job.include_usage_ = parsed.include_usage;
  job.choices_per_prompt_ = first.n;
  int64_t num_scores = 0;
  for (GenerateRequest& request : parsed.prompts) {
    request.request_id = identity.request_id;
    request.tenant = identity.tenant;
    request.deadline = identity.deadline;
    ASSIGN_OR_RETURN(std::unique_ptr<Generation> generation, service.Generate(std::move(request), wake));
    num_scores += generation->num_scores();
    RETURN_IF_ERROR(CheckScores(num_scores));
    job.generations_.push_back(std::move(generation));
  }
  job.answer_ = std::make_unique<OpenAiAnswer>(std::move(options), job.num_choices());
  return job;
}

std::vector<Delta> OpenAiJob::Take() {
  std::vector<Delta> out;
  for (size_t prompt = 0; prompt < generations_.size(); ++prompt) {
    for (Delta& delta : generations_[prompt]->Take()) {
      delta.index += static_cast<int>(choices_per_prompt_ * static_cast<int64_t>(prompt));
      out.push_back(std::move(delta));
    }
  }
  return out;
}

bool OpenAiJob::done() const {
  return std::all_of(generations_.begin(), generations_.end(),
                     [](const auto& generation) { return generation->done(); });
}

Usage OpenAiJob::usage() const {
  Usage sum;
  for (const auto& generation : generations_) {
    const Usage usage = generation->usage();
    sum.prompt_tokens += usage.prompt_tokens;
    sum.completion_tokens += usage.completion_tokens;
    sum.cached_tokens += usage.cached_tokens;
  }
  return sum;
}

}  // namespace weft
