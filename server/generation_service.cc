#include "server/generation_service.h"

#include <algorithm>
#include <utility>

#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/limits.h"
#include "server/random_id.h"
#include "server/sampling.h"

namespace weft {
namespace {

constexpr absl::Duration kDrainRetry = absl::Seconds(5);  // about what a load balancer needs to look elsewhere

absl::Status Draining() {
  return WithRetryAfter(
      ApiError(absl::StatusCode::kUnavailable, "draining", "", "the server is shutting down; try another"),
      kDrainRetry);
}

absl::Status TenantLimited(absl::string_view message) {
  return ApiError(absl::StatusCode::kResourceExhausted, "tenant_rate_limited", "", message);
}

absl::Status RefusedBecause(const Refusal& refusal) {
  switch (refusal.reason) {
    case Refusal::Reason::kClosed:
      return Draining();
    case Refusal::Reason::kQueueFull:
      return WithRetryAfter(Overloaded(), refusal.retry_after);
    case Refusal::Reason::kTenantQueueFull:
      return WithRetryAfter(TenantLimited("the tenant has as many requests in the queue as it may have"),
                            refusal.retry_after);
    case Refusal::Reason::kTenantRate:
      return WithRetryAfter(TenantLimited("the tenant has used up its tokens a minute"), refusal.retry_after);
    case Refusal::Reason::kTooSlow:
      break;
  }
  return WithRetryAfter(ApiError(absl::StatusCode::kResourceExhausted, "server_overloaded", "",
                                 "the first token would come later than this server means to give it"),
                        refusal.retry_after);
}

absl::Status TooLong(absl::string_view param, absl::string_view message) {
  return BadRequest("context_length_exceeded", param, message);
}

// A template's errors begin with their code word, and are the client's: the template itself was tried at start.
absl::Status TemplateError(const absl::Status& status) {
  const absl::string_view message = status.message();
  return BadRequest(message.substr(0, message.find(':')), "messages", "the chat template can't render these messages");
}

size_t NumBytes(const std::vector<TextSegment>& segments) {
  size_t num_bytes = 0;
  for (const TextSegment& segment : segments) num_bytes += segment.text.size();
  return num_bytes;
}

// A completion goes on from its prompt; the answer in a conversation is a text of its own.
std::optional<int32_t> Continues(const GenerateRequest& request, const std::vector<int32_t>& prompt) {
  if (std::holds_alternative<ChatPrompt>(request.prompt)) return std::nullopt;
  return prompt.back();
}

absl::string_view PromptParam(const GenerateRequest& request) {
  return std::holds_alternative<ChatPrompt>(request.prompt) ? "messages" : "prompt";
}

}  // namespace

// A request that is being admitted: the service isn't idle.
class GenerationService::Admission {
 public:
  explicit Admission(GenerationService& service) : service_(&service) {}
  Admission(Admission&& other) noexcept : service_(std::exchange(other.service_, nullptr)) {}
  Admission& operator=(Admission&&) = delete;
  ~Admission() {
    if (service_ == nullptr) return;
    absl::MutexLock lock(&service_->mutex_);
    --service_->num_admitting_;
  }

 private:
  GenerationService* service_;
};

GenerationService::GenerationService(GenerationServiceOptions options, const GenerationServiceParts& parts)
    : options_(std::move(options)),
      tokenizer_(parts.tokenizer),
      chat_templates_(parts.chat_templates),
      queue_(parts.queue),
      metrics_(parts.metrics),
      clock_(parts.clock) {}

GenerationService::~GenerationService() = default;

// In order of cost: what a bad or hopeless request costs the server grows only as it passes.
absl::StatusOr<std::unique_ptr<Generation>> GenerationService::Generate(GenerateRequest request,
                                                                        std::function<void()> wake) {
  const absl::Time arrival = clock_.Now();
  ASSIGN_OR_RETURN(const Admission admission, BeginAdmission());
  if (!ServesModel(request.model)) {
    return ApiError(absl::StatusCode::kNotFound, "model_not_found", "model", "no such model is served here");
  }
  RETURN_IF_ERROR(CheckLimits(request));
  RETURN_IF_ERROR(CheckIds(request));
  ASSIGN_OR_RETURN(const Priority priority, CheckPolicy(request));
  if (arrival >= request.deadline) return DeadlinePassed();
  std::variant<QueuePlaces, Refusal> reserved = queue_.Reserve(request.tenant, priority, request.n);
  if (const auto* refusal = std::get_if<Refusal>(&reserved)) return RefusedBecause(*refusal);

  std::unique_ptr<Generation> generation(new Generation(*this, std::move(wake)));
  ASSIGN_OR_RETURN(generation->prompt_ids_, PromptIds(request));
  const auto num_tokens = static_cast<int64_t>(generation->prompt_ids_.size());
  ASSIGN_OR_RETURN(const int64_t max_tokens, MaxTokens(request, num_tokens));
  const std::optional<Refusal> slow = queue_.CheckTimeToFirstToken(request.tenant, priority, num_tokens);
  if (slow.has_value()) return RefusedBecause(*slow);
  if (request.echo) {
    generation->prompt_text_ = PromptText(request, generation->prompt_ids_);
    if (request.num_logprobs.has_value()) generation->num_scores_ = num_tokens * (*request.num_logprobs + 1);
    RETURN_IF_ERROR(CheckScores(generation->num_scores_));
    generation->prompt_shows_special_ =
        std::holds_alternative<std::vector<int32_t>>(request.prompt) && !request.skip_special_tokens;
  }

  Request prototype;
  prototype.tenant = request.tenant;
  prototype.priority = priority;
  prototype.arrival = arrival;
  prototype.deadline = request.deadline;
  prototype.prompt = generation->prompt_ids_;
  prototype.sampling = MakeSampling(request, options_.defaults, Seed(request));
  prototype.stop = MakeStop(request, options_.eos_token_ids, max_tokens);
  if (prototype.sampling.min_tokens > 0) prototype.sampling.banned_before_min = prototype.stop.stop_token_ids;
  SetPrefixKeys(request, prototype);
  RETURN_IF_ERROR(Enqueue(*generation, request, prototype, std::get<QueuePlaces>(std::move(reserved))));
  metrics_.CountPromptTokens(static_cast<int64_t>(prototype.prompt.size()));
  return generation;
}

void GenerationService::StopAccepting() { StopAccepting(Draining()); }

void GenerationService::StopAccepting(absl::Status why) {
  absl::MutexLock lock(&mutex_);
  if (accepting_.exchange(false)) why_not_accepting_ = std::move(why);
}

absl::Status GenerationService::NotAccepting() const {
  absl::MutexLock lock(&mutex_);
  return why_not_accepting_;
}

absl::StatusOr<GenerationService::Admission> GenerationService::BeginAdmission() {
  absl::MutexLock lock(&mutex_);
  // Under the lock: who waits until the service is idle must not miss a request that saw it accept.
  if (!accepting()) return why_not_accepting_;
  ++num_admitting_;
  return Admission(*this);
}

absl::StatusOr<QueuePlaces> GenerationService::HoldPlace(const std::string& tenant) {
  if (!accepting()) return NotAccepting();
  // Of the class that waits the least: what the request will ask for isn't known yet.
  std::variant<QueuePlaces, Refusal> reserved = queue_.Reserve(tenant, Priority::kHigh, 1);
  if (const auto* refusal = std::get_if<Refusal>(&reserved)) return RefusedBecause(*refusal);
  return std::get<QueuePlaces>(std::move(reserved));
}

absl::StatusOr<Priority> GenerationService::CheckPolicy(const GenerateRequest& request) const {
  const std::shared_ptr<const TenantPolicies> policies = queue_.policies();
  const TenantPolicy& policy = policies->For(request.tenant);
  if (request.n > policy.max_queued) {
    return BadRequest("out_of_range", "n", "more choices than the tenant may ever have in the queue");
  }
  const Priority priority = request.priority.value_or(policy.priority);
  if (priority <= policy.max_priority) return priority;
  return ApiError(absl::StatusCode::kPermissionDenied, "forbidden", "priority",
                  "the tenant may not ask for so high a priority");
}

absl::Status GenerationService::CheckIds(const GenerateRequest& request) const {
  const int32_t vocab_size = options_.model.vocab_size;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt)) {
    if (static_cast<int64_t>(ids->size()) >= options_.model.max_model_len) {
      return TooLong("prompt", "the prompt leaves no room for a token");
    }
    RETURN_IF_ERROR(CheckTokenIds(*ids, vocab_size, "prompt"));
  }
  RETURN_IF_ERROR(CheckTokenIds(request.stop_token_ids, vocab_size, "stop_token_ids"));
  for (const auto& [token, bias] : request.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return BadRequest("invalid_token_id", "logit_bias", "a token id is not in the model's vocabulary");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> GenerationService::PromptIds(const GenerateRequest& request) const {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt)) return *ids;
  if (const auto* chat = std::get_if<ChatPrompt>(&request.prompt)) return EncodeChat(*chat);
  return EncodeText(std::get<std::string>(request.prompt), request.add_special_tokens);
}

absl::StatusOr<std::vector<int32_t>> GenerationService::EncodeChat(const ChatPrompt& chat) const {
  ASSIGN_OR_RETURN(const std::vector<TextSegment> segments, RenderChat(chat));
  RETURN_IF_ERROR(CheckBytes(NumBytes(segments), "messages"));
  return tokenizer_.EncodeSegments(segments);
}

absl::StatusOr<std::vector<int32_t>> GenerationService::EncodeText(const std::string& text,
                                                                   bool add_special_tokens) const {
  RETURN_IF_ERROR(CheckBytes(text.size(), "prompt"));
  std::vector<int32_t> ids = tokenizer_.Encode(text);
  return add_special_tokens ? tokenizer_.AddSpecial(std::move(ids)) : ids;
}

absl::StatusOr<std::vector<TextSegment>> GenerationService::RenderChat(const ChatPrompt& chat) const {
  if (chat_templates_ == nullptr) {
    return BadRequest("unsupported_parameter", "messages", "this model has no chat template");
  }
  const ChatTemplate& chat_template = chat_templates_->For(chat.inputs.contains("tools"));
  absl::StatusOr<std::vector<TextSegment>> segments = chat_template.Render(chat.inputs, clock_.Now());
  if (!segments.ok()) return TemplateError(segments.status());
  return segments;
}

// Before tokens are counted: so many bytes can't come to few enough.
absl::Status GenerationService::CheckBytes(size_t prompt_bytes, absl::string_view param) const {
  const int64_t fewest_tokens = static_cast<int64_t>(prompt_bytes) / tokenizer_.max_token_bytes();
  if (fewest_tokens < options_.model.max_model_len) return absl::OkStatus();
  return TooLong(param, "the prompt is longer than the model's context");
}

// What the request may generate.
absl::StatusOr<int64_t> GenerationService::MaxTokens(const GenerateRequest& request, int64_t num_prompt_tokens) const {
  const absl::string_view param = PromptParam(request);
  const int64_t left = options_.model.max_model_len - num_prompt_tokens;
  if (num_prompt_tokens == 0) return BadRequest("empty", param, "the prompt has no token");
  if (left < 1) return TooLong(param, "the prompt leaves no room for a token");
  if (!request.max_tokens.has_value()) {
    const int64_t most = std::min<int64_t>(left, options_.defaults.max_new_tokens.value_or(left));
    return std::max(most, std::min(left, request.min_tokens));
  }
  if (*request.max_tokens > left) {
    return TooLong("max_tokens", "the prompt and max_tokens together are longer than the model's context");
  }
  return *request.max_tokens;
}

std::string GenerationService::PromptText(const GenerateRequest& request, const std::vector<int32_t>& ids) const {
  if (const auto* text = std::get_if<std::string>(&request.prompt)) return *text;
  return tokenizer_.Decode(ids, request.skip_special_tokens);
}

uint64_t GenerationService::Seed(const GenerateRequest& request) {
  if (request.seed.has_value()) return static_cast<uint64_t>(*request.seed);
  absl::MutexLock lock(&mutex_);
  return absl::Uniform<uint64_t>(seeds_);
}

void GenerationService::SetPrefixKeys(const GenerateRequest& request, Request& prototype) const {
  const bool is_off = options_.prefix_cache == PrefixCache::kOff;
  if (is_off && request.n == 1) return;
  const bool everybody = options_.prefix_cache == PrefixCache::kAll;
  const absl::string_view tenant = everybody ? absl::string_view() : absl::string_view(request.tenant);
  // Where nothing is shared between requests, choices of one still share its prompt.
  const std::string salt = is_off ? RandomId("only-") : request.cache_salt;
  prototype.prefix_scope = ScopeKey(tenant, options_.model.fingerprint, salt);
  prototype.prefix_keys = PrefixKeys(*prototype.prefix_scope, prototype.prompt, options_.block_size);
}

// All choices or none.
absl::Status GenerationService::Enqueue(Generation& generation, const GenerateRequest& request,
                                        const Request& prototype, QueuePlaces places) {
  const ChoiceOptions reader{.skip_special_tokens = request.skip_special_tokens,
                             .include_stop = request.include_stop_str_in_output,
                             .wants_logprobs = request.num_logprobs.has_value(),
                             .min_tokens = request.min_tokens,
                             .stop = request.stop,
                             .stop_token_ids = request.stop_token_ids,
                             .continues_id = Continues(request, prototype.prompt)};
  for (int i = 0; i < static_cast<int>(request.n); ++i) {
    ChoiceOptions choice = reader;
    choice.index = i;
    auto stream =
        std::make_shared<TokenStream>(generation.waker_, prototype.arrival, choice.wants_logprobs, clock_, metrics_);
    generation.choices_.push_back({.request_id = next_request_id_.fetch_add(1),
                                   .stream = std::move(stream),
                                   .reader = ChoiceReader(tokenizer_, std::move(choice)),
                                   .echoed = !request.echo});
  }
  Remember(generation);
  for (const Generation::Choice& choice : generation.choices_) {
    auto queued = std::make_unique<Request>(prototype);
    queued->id = choice.request_id;
    queued->sampling.sequence = static_cast<uint32_t>(&choice - generation.choices_.data());
    queued->sink = choice.stream;
    // Only a closed queue refuses; what was pushed before goes with the generation.
    if (!queue_.Push(places, queued)) return Draining();
  }
  return absl::OkStatus();
}

void GenerationService::Remember(Generation& generation) {
  generation.num_open_ = static_cast<int>(generation.choices_.size());
  absl::MutexLock lock(&mutex_);
  active_.insert(&generation);
}

void GenerationService::Forget(Generation& generation) {
  absl::MutexLock lock(&mutex_);
  active_.erase(&generation);
}

void GenerationService::Cancel(int64_t request_id, TokenStream& stream) {
  stream.Cancel();
  queue_.Cancel(request_id);
}

int64_t GenerationService::num_active() const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int64_t>(active_.size());
}

bool GenerationService::WaitUntilIdle(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &GenerationService::IsIdle), timeout);
}

void GenerationService::CancelAll(const absl::Status& why) {
  std::vector<std::pair<int64_t, std::shared_ptr<TokenStream>>> streams;
  {
    absl::MutexLock lock(&mutex_);
    for (const Generation* generation : active_) {
      for (const Generation::Choice& choice : generation->choices_) {
        streams.emplace_back(choice.request_id, choice.stream);
      }
    }
  }
  for (const auto& [request_id, stream] : streams) {
    stream->Abort(why);
    queue_.Cancel(request_id);
  }
}

void GenerationService::CancelAll() {
  CancelAll(ApiError(absl::StatusCode::kUnavailable, "shutting_down", "", "the server shut down before the end"));
}

bool GenerationService::ServesModel(absl::string_view name) const {
  const std::vector<std::string>& names = options_.model.names;
  return name.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

absl::StatusOr<std::vector<int32_t>> GenerationService::Tokenize(const std::variant<std::string, ChatPrompt>& prompt,
                                                                 bool add_special_tokens) const {
  if (const auto* chat = std::get_if<ChatPrompt>(&prompt)) return EncodeChat(*chat);
  return EncodeText(std::get<std::string>(prompt), add_special_tokens);
}

absl::StatusOr<std::string> GenerationService::Detokenize(const std::vector<int32_t>& ids) const {
  RETURN_IF_ERROR(CheckTokenIds(ids, options_.model.vocab_size, "tokens"));
  return tokenizer_.Decode(ids, /*skip_special=*/false);
}

std::string GenerationService::TokenBytes(int32_t id) const { return tokenizer_.TokenBytes(id); }

}  // namespace weft
