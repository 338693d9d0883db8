// The one door for both protocols: a validated request goes in as text or token ids, deltas of text come out.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/random/random.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/model_config.h"
#include "scheduler/clock.h"
#include "scheduler/fair_queue.h"
#include "server/generate_request.h"
#include "server/generation.h"
#include "server/metrics.h"
#include "server/prefix_cache.h"
#include "server/text/chat_template_loader.h"
#include "server/text/text_segment.h"
#include "server/text/tokenizer.h"

namespace weft {

// What clients may know of the model.
struct ModelInfo {
  std::vector<std::string> names;  // as served; the first is the canonical one
  std::string root;                // the directory it was loaded from
  absl::Time created;
  int64_t max_model_len = 0;
  int32_t vocab_size = 0;
  std::string fingerprint;  // see ModelFingerprint()
};

struct GenerationServiceOptions {
  ModelInfo model;
  GenerationConfig defaults;           // for what a request leaves out
  std::vector<int32_t> eos_token_ids;  // end a sequence unless a request ignores them
  PrefixCache prefix_cache = PrefixCache::kTenant;
  int block_size = 16;  // of the engines' KV caches
};

// What the service uses and does not own; all of it outlives the service.
struct GenerationServiceParts {
  const Tokenizer& tokenizer;
  const ChatTemplates* chat_templates;  // null: the model has none, and chat is refused
  FairQueue& queue;
  Metrics& metrics;
  const Clock& clock;
};

// Validates, prices, renders the template, tokenizes, enqueues. Thread-safe.
class GenerationService {
 public:
  GenerationService(GenerationServiceOptions options, const GenerationServiceParts& parts);
  ~GenerationService();  // requires that no Generation lives

  // A place for a request that waits to be parsed, to be given back right before Generate: where there is none, the
  // request would be refused whatever it says, and is told so at once. Errors: 429, 503.
  absl::StatusOr<QueuePlaces> HoldPlace(const std::string& tenant);

  // Admission is decided here, before any byte of an answer: errors are ApiErrors (400, 403, 404, 413, 429, 503, 504).
  // `wake` is called, from any thread, when Take() has something new after it gave nothing; it must only post. It may
  // be called before this returns, and is never called once the Generation is destroyed. Costs time linear in the
  // prompt.
  absl::StatusOr<std::unique_ptr<Generation>> Generate(GenerateRequest request, std::function<void()> wake);

  // As Generate would, and with its bound on bytes: a text that can't fit the context is refused, not tokenized.
  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::variant<std::string, ChatPrompt>& prompt,
                                                bool add_special_tokens) const;
  absl::StatusOr<std::string> Detokenize(const std::vector<int32_t>& ids) const;
  std::string TokenBytes(int32_t id) const;

  const ModelInfo& model() const { return options_.model; }
  bool ServesModel(absl::string_view name) const;  // empty: yes

  // From now on new work gets 503: "draining", or `why`. What was accepted goes on.
  void StopAccepting();
  void StopAccepting(absl::Status why);
  bool accepting() const { return accepting_.load(); }
  int64_t num_active() const;  // generations not yet done

  // Blocks until nothing is under way, neither generating nor being admitted. False: not within `timeout`.
  bool WaitUntilIdle(absl::Duration timeout) const;

  // Ends everything that runs or waits with `why`: drain time is over, or the engine died.
  void CancelAll(const absl::Status& why);
  void CancelAll();  // because the server shuts down

 private:
  friend class Generation;
  class Admission;

  bool IsIdle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return active_.empty() && num_admitting_ == 0; }

  absl::Status NotAccepting() const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Admission> BeginAdmission();
  absl::StatusOr<Priority> CheckPolicy(const GenerateRequest& request) const;  // the class it runs in
  absl::StatusOr<std::vector<int32_t>> PromptIds(const GenerateRequest& request) const;
  absl::StatusOr<std::vector<int32_t>> EncodeChat(const ChatPrompt& chat) const;
  absl::StatusOr<std::vector<int32_t>> EncodeText(const std::string& text, bool add_special_tokens) const;
  absl::StatusOr<std::vector<TextSegment>> RenderChat(const ChatPrompt& chat) const;
  absl::Status CheckBytes(size_t prompt_bytes, absl::string_view param) const;
  absl::StatusOr<int64_t> MaxTokens(const GenerateRequest& request, int64_t num_prompt_tokens) const;
  absl::Status CheckIds(const GenerateRequest& request) const;
  std::string PromptText(const GenerateRequest& request, const std::vector<int32_t>& ids) const;
  uint64_t Seed(const GenerateRequest& request);
  void SetPrefixKeys(const GenerateRequest& request, Request& prototype) const;
  absl::Status Enqueue(Generation& generation, const GenerateRequest& request, const Request& prototype,
                       QueuePlaces places);
  void Remember(Generation& generation);
  void Forget(Generation& generation);
  void Cancel(int64_t request_id, TokenStream& stream);

  const GenerationServiceOptions options_;
  const Tokenizer& tokenizer_;
  const ChatTemplates* const chat_templates_;
  FairQueue& queue_;
  Metrics& metrics_;
  const Clock& clock_;
  std::atomic<bool> accepting_{true};
  std::atomic<int64_t> next_request_id_{1};

  mutable absl::Mutex mutex_;
  absl::BitGen seeds_ ABSL_GUARDED_BY(mutex_);
  int64_t num_admitting_ ABSL_GUARDED_BY(mutex_) = 0;  // requests between their first look and their last
  absl::Status why_not_accepting_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<Generation*> active_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace weft
