// Engines of a fixture model whose ranks are processes of this host.
#pragma once

#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "engine/remote/remote_engine.h"
#include "gtest/gtest.h"
#include "tests/engine/parallel_case.h"
#include "tests/engine/remote/test_worker.h"

namespace weft {

class RemoteModel {
 public:
  // `dir`: in place of the case's fixture.
  explicit RemoteModel(const Case& c, int num_replicas = 1, absl::Duration step_timeout = absl::Seconds(10),
                       const std::string& dir = "") {
    const ModelConfig config = *LoadModelConfig(FixtureModel(c.model));
    RemoteOptions options;
    options.num_replicas = num_replicas;
    options.coordinator.version = kTestVersion;
    options.coordinator.log = [this](absl::string_view line) {
      absl::MutexLock lock(&mutex_);
      log_.emplace_back(line);
    };
    options.command = TestWorkerCommand();
    for (char** variable = environ; *variable != nullptr; ++variable) options.environment.emplace_back(*variable);
    options.join_timeout = absl::Seconds(20);
    options.step_timeout = step_timeout;
    EngineSetup setup = SetupOf(c, config);
    if (!dir.empty()) setup.model_dir = dir;
    auto engines = RemoteEngines::Start(config, setup, options);
    EXPECT_TRUE(engines.ok()) << engines.status();
    engines_ = *std::move(engines);
  }

  RemoteEngines& engines() { return *engines_; }
  std::string Log() {
    absl::MutexLock lock(&mutex_);
    std::string all;
    for (const std::string& line : log_) all += line + "\n";
    return all;
  }

 private:
  absl::Mutex mutex_;
  std::vector<std::string> log_;
  std::unique_ptr<RemoteEngines> engines_;
};

// A step of one token, for engines that nobody schedules.
inline Batch OneTokenStep(int64_t step) {
  Batch batch;
  batch.step = step;
  batch.token_ids = {1};
  batch.positions = {static_cast<int32_t>(step)};
  batch.row_begin = {0, 1};
  batch.slots = {0};
  if (step == 0) {
    batch.slot_starts.push_back({.slot = 0, .num_prompt_tokens = 1, .sampling = {}, .tokens = {}});
    batch.block_updates.push_back({.slot = 0, .index = 0, .block = 0});
  }
  batch.sampling.push_back({.row = 0, .position = step + 1});
  return batch;
}

}  // namespace weft
