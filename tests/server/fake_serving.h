// A generation service with everything behind it but a model: a real tokenizer, queue, scheduler and replica thread,
// and an engine whose draws are known.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "scheduler/clock.h"
#include "scheduler/dispatcher.h"
#include "scheduler/fair_queue.h"
#include "scheduler/replica.h"
#include "server/generation_service.h"
#include "server/metrics.h"
#include "server/text/chat_template_loader.h"
#include "server/text/tokenizer.h"
#include "tests/fakes/fake_engine.h"

namespace weft {

inline constexpr char kFakeTemplate[] =
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n{{ m.content }}<|eot_id|>"
    "{% endfor %}{% if messages[0].content == 'forbidden' %}{{ raise_exception('no') }}{% endif %}";

// A FakeEngine whose life is so many steps long.
class MortalEngine final : public Engine {
 public:
  MortalEngine(const EngineLimits& limits, int64_t steps_to_live,
               absl::Status death = absl::InternalError("the device at /dev/x is gone"))
      : engine_(limits), steps_to_live_(steps_to_live), death_(std::move(death)) {}

  const EngineLimits& limits() const override { return engine_.limits(); }
  bool HasRoom() const override { return engine_.HasRoom(); }
  bool HasInFlight() const override { return engine_.HasInFlight(); }
  void Submit(const Batch& batch) override { engine_.Submit(batch); }
  absl::Status status() const override { return engine_.status(); }
  absl::StatusOr<StepResult> Collect() override {
    if (steps_to_live_-- == 0) engine_.Die(death_);
    return engine_.Collect();
  }
  EngineStats stats() const override { return engine_.stats(); }

 private:
  FakeEngine engine_;
  int64_t steps_to_live_;
  const absl::Status death_;
};

struct FakeServingOptions {
  int max_queued_requests = 64;
  bool leave_room = false;    // in the queue, for other tenants
  bool start_replica = true;  // false: everything waits in the queue until the test starts a replica, or turns it
  int num_replicas = 1;
  std::vector<int64_t> steps_to_live;  // of the first replicas' engines; the others live on
  absl::Duration max_ttft = absl::InfiniteDuration();
  TenantPolicies policies;
  PrefixCache prefix_cache = PrefixCache::kTenant;
  int64_t max_model_len = 256;
  std::vector<int32_t> eos_token_ids;
  GenerationConfig defaults;
};

class FakeServing {
 public:
  static constexpr int32_t kVocabSize = 906;  // of the tokenizer
  static constexpr int kNumBlocks = 64;

  explicit FakeServing(const FakeServingOptions& options = {})
      : queue({.max_requests = options.max_queued_requests,
               .leave_room = options.leave_room,
               .max_time_to_first_token = options.max_ttft},
              clock),
        dispatcher({.num_replicas = options.num_replicas}, queue, clock) {
    queue.SetPolicies(std::make_shared<const TenantPolicies>(options.policies));
    auto loaded = Tokenizer::Load(WEFT_SOURCE_DIR "/tests/fixtures/tokenizers/llama3");
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    tokenizer = *std::move(loaded);
    chat_templates.emplace(
        ChatTemplates{*ChatTemplate::Parse(kFakeTemplate, "<|begin_of_text|>", "<|end_of_text|>"), std::nullopt});
    const EngineLimits limits{.max_model_len = options.max_model_len,
                              .num_blocks = kNumBlocks,
                              .block_size = 16,
                              .max_num_seqs = 8,
                              .max_num_batched_tokens = 64,
                              .vocab_size = kVocabSize};
    const SchedulerOptions scheduler_options{.tell_cache_changes = options.num_replicas > 1};
    for (int id = 0; id < options.num_replicas; ++id) {
      const auto i = static_cast<size_t>(id);
      const bool is_mortal = i < options.steps_to_live.size();
      auto engine = std::make_unique<MortalEngine>(limits, is_mortal ? options.steps_to_live[i] : int64_t{1} << 60);
      replicas.push_back(std::make_unique<Replica>(id, std::move(engine), scheduler_options, dispatcher, clock));
    }
    GenerationServiceOptions service_options;
    service_options.prefix_cache = options.prefix_cache;
    service_options.model = {.names = {"fake", "alias"},
                             .root = "/models/fake",
                             .created = absl::UnixEpoch(),
                             .max_model_len = options.max_model_len,
                             .vocab_size = kVocabSize,
                             .fingerprint = "f"};
    service_options.defaults = options.defaults;
    service_options.eos_token_ids = options.eos_token_ids;
    service = std::make_unique<GenerationService>(
        std::move(service_options), GenerationServiceParts{*tokenizer, &*chat_templates, queue, metrics, clock});
    metrics.SetStatsSource([this] {
      SchedulerSnapshot snapshot{.replicas = {}, .queue = queue.stats()};
      for (const auto& replica : replicas) snapshot.replicas.push_back({replica->stats(), replica->status().ok()});
      return snapshot;
    });
    if (!options.start_replica) return;
    for (const auto& replica : replicas) replica->Start();
  }

  ~FakeServing() {
    queue.Close();
    for (const auto& replica : replicas) replica->Join();
    metrics.SetStatsSource(nullptr);
  }

  // One turn of the main loop of a replica that was not started.
  void Turn(size_t id = 0) {
    Replica& replica = *replicas[id];
    replica.PullWork();
    replica.SubmitSteps();
    if (replica.HasInFlight()) replica.FinishStep();
    replica.Publish();
  }

  // What a request with this prompt and seed draws, as text.
  std::string ExpectedText(const std::vector<int32_t>& prompt, uint64_t seed, int count, uint32_t sequence = 0) const {
    SamplingParams sampling;
    sampling.seed = seed;
    sampling.sequence = sequence;
    return tokenizer->Decode(FakeEngine::ExpectedTokens(prompt, sampling, kVocabSize, count), /*skip_special=*/true);
  }

  SystemClock clock;
  Metrics metrics;
  FairQueue queue;
  Dispatcher dispatcher;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<ChatTemplates> chat_templates;
  std::vector<std::unique_ptr<Replica>> replicas;
  std::unique_ptr<GenerationService> service;
};

// Counts wakes, and lets a test wait for one.
class WakeCounter {
 public:
  std::function<void()> Wake() {
    return [this] {
      absl::MutexLock lock(&mutex_);
      ++count_;
    };
  }

  // Waits until there was a wake since the last call. False: none came.
  bool Await() {
    absl::MutexLock lock(&mutex_);
    const bool came = mutex_.AwaitWithTimeout(absl::Condition(this, &WakeCounter::HasNew), absl::Seconds(20));
    seen_ = count_;
    return came;
  }

  int count() const {
    absl::MutexLock lock(&mutex_);
    return count_;
  }

 private:
  bool HasNew() const { return count_ > seen_; }

  mutable absl::Mutex mutex_;
  int count_ = 0;
  int seen_ = 0;
};

// What a generation gave in all, by choice.
struct Collected {
  std::vector<std::string> texts;
  std::vector<std::vector<int32_t>> token_ids;
  std::vector<std::vector<GeneratedToken>> logprobs;
  std::vector<Finish> finishes;
};

inline Collected Collect(Generation& generation, WakeCounter& wakes, size_t num_choices = 1) {
  Collected all{std::vector<std::string>(num_choices), std::vector<std::vector<int32_t>>(num_choices),
                std::vector<std::vector<GeneratedToken>>(num_choices), std::vector<Finish>(num_choices)};
  while (!generation.done()) {
    if (!wakes.Await()) {
      ADD_FAILURE() << "the generation stands still";
      return all;
    }
    for (const Delta& delta : generation.Take()) {
      const auto i = static_cast<size_t>(delta.index);
      all.texts[i] += delta.text;
      all.token_ids[i].insert(all.token_ids[i].end(), delta.token_ids.begin(), delta.token_ids.end());
      all.logprobs[i].insert(all.logprobs[i].end(), delta.logprobs.begin(), delta.logprobs.end());
      if (delta.finish.has_value()) all.finishes[i] = *delta.finish;
    }
  }
  return all;
}

// The value of a series on /metrics, or -1 where there is none.
inline double MetricValue(const Metrics& metrics, const std::string& series) {
  const std::string text = absl::StrCat("\n", metrics.Render());
  const size_t begin = text.find(absl::StrCat("\n", series, " "));
  return begin == std::string::npos ? -1 : std::stod(text.substr(begin + series.size() + 2));
}

}  // namespace weft
