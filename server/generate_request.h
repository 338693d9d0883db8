// A request as both protocols hand it to the generation service.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "scheduler/request.h"

namespace weft {

// Messages, tools and further template variables as the client sent them: a JSON object with "messages".
struct ChatPrompt {
  nlohmann::ordered_json inputs;
};

// Plain value. Types are checked by the protocol's parser; ranges by one table (limits.h).
struct GenerateRequest {
  std::string request_id;                        // of the client, or made by the front end; echoed, logged
  std::string tenant;                            // who pays: the API key's id, or "default"
  std::string model;                             // empty: the one that is served
  std::optional<Priority> priority;              // none: the tenant's
  absl::Time deadline = absl::InfiniteFuture();  // then it ends in an error, wherever it is
  std::variant<std::string, std::vector<int32_t>, ChatPrompt> prompt;
  bool add_special_tokens = true;  // for text prompts: the tokenizer's post-processor (bos)

  int64_t n = 1;
  std::optional<int64_t> max_tokens;  // none: what the model's positions leave
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;
  bool skip_special_tokens = true;
  bool echo = false;  // the prompt's text comes first

  // None: the model's generation_config.json, else the neutral value.
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  std::vector<std::pair<int64_t, double>> logit_bias;
  std::string cache_salt;  // blocks are shared only among requests with the same one
  std::optional<int64_t> seed;
  std::optional<int64_t> num_logprobs;  // best tokens to report beside the drawn one
};

}  // namespace weft
