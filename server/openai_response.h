// Answers of the OpenAI API: deltas into JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/generation_service.h"
#include "server/json_parse.h"

namespace weft {

enum class OpenAiApi { kCompletion, kChat };

// All of one choice, put together from its deltas.
struct WholeChoice {
  std::string text;
  std::vector<GeneratedToken> logprobs;
  std::optional<Finish> finish;
};

// What all parts of one answer have in common.
struct OpenAiAnswerOptions {
  OpenAiApi api = OpenAiApi::kChat;
  std::string model;  // the name that the client knows
  std::string fingerprint;
  absl::Time created;
  bool logprobs = false;       // the request asked for them
  bool include_usage = false;  // chunks before the last then say `usage: null`
};

// The JSON of one answer, whole or in chunks. Keeps what must be the same in all chunks, and where each choice's text
// is. Owned by the answer's connection, used by one thread at a time.
class OpenAiAnswer {
 public:
  OpenAiAnswer(OpenAiAnswerOptions options, int64_t num_choices);

  std::string Whole(const std::vector<WholeChoice>& choices, const Usage& usage);

  // Chunks. For chat, Role comes before the first Content of its choice; Finish is a chunk of its own.
  std::string Role(int64_t index) const;
  std::string Content(int64_t index, const std::string& text, const std::vector<GeneratedToken>& tokens);
  std::string FinishChunk(int64_t index, const Finish& finish) const;
  std::string UsageChunk(const Usage& usage) const;

  const std::string& id() const { return id_; }

 private:
  Json Head(bool chunk) const;
  Json ChunkOf(Json choice) const;
  Json ChoiceLogprobs(int64_t index, const std::vector<GeneratedToken>& tokens);

  const OpenAiAnswerOptions options_;
  const std::string id_;
  std::vector<int64_t> num_chars_;  // [num_choices] of the tokens reported so far, for `text_offset`
};

// `{"error": {...}}`. An error that is no ApiError says nothing but that it is internal.
Json ErrorJson(const absl::Status& error);

}  // namespace weft
