#include "server/sampling.h"

#include <algorithm>

namespace weft {
namespace {

// Below it, dividing by the temperature leaves the likeliest token alone, or overflows: greedy in all but name.
constexpr double kLeastTemperature = 1e-4;

float Choose(const std::optional<double>& asked, const std::optional<float>& model, float neutral) {
  return asked.has_value() ? static_cast<float>(*asked) : model.value_or(neutral);
}

}  // namespace

SamplingParams MakeSampling(const GenerateRequest& request, const GenerationConfig& defaults, uint64_t seed) {
  SamplingParams sampling;
  sampling.temperature = Choose(request.temperature, defaults.temperature, 1.0f);
  if (sampling.temperature < kLeastTemperature) sampling.temperature = 0;
  // -1 and 0 both say "all"; the scheduler knows 0.
  sampling.top_k = static_cast<int32_t>(std::max<int64_t>(0, request.top_k.value_or(defaults.top_k.value_or(0))));
  sampling.top_p = Choose(request.top_p, defaults.top_p, 1.0f);
  sampling.min_p = Choose(request.min_p, defaults.min_p, 0.0f);
  sampling.repetition_penalty = Choose(request.repetition_penalty, defaults.repetition_penalty, 1.0f);
  sampling.presence_penalty = static_cast<float>(request.presence_penalty);
  sampling.frequency_penalty = static_cast<float>(request.frequency_penalty);
  for (const auto& [token, bias] : request.logit_bias) {
    sampling.logit_bias.emplace_back(static_cast<int32_t>(token), static_cast<float>(bias));
  }
  sampling.seed = seed;
  sampling.num_logprobs = static_cast<int32_t>(request.num_logprobs.value_or(-1));
  sampling.score_prompt = request.echo && request.num_logprobs.has_value();
  sampling.min_tokens = static_cast<int32_t>(request.min_tokens);
  return sampling;
}

StopCriteria MakeStop(const GenerateRequest& request, const std::vector<int32_t>& eos_token_ids, int64_t max_tokens) {
  StopCriteria stop;
  stop.max_tokens = static_cast<int32_t>(max_tokens);
  stop.stop_token_ids = request.stop_token_ids;
  if (!request.ignore_eos) {
    stop.stop_token_ids.insert(stop.stop_token_ids.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  std::sort(stop.stop_token_ids.begin(), stop.stop_token_ids.end());
  stop.stop_token_ids.erase(std::unique(stop.stop_token_ids.begin(), stop.stop_token_ids.end()),
                            stop.stop_token_ids.end());
  return stop;
}

}  // namespace weft
