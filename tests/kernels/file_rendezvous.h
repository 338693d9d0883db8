// A Rendezvous in a directory, by way of Gloo's own FileStore.
#pragma once

#include <gloo/rendezvous/file_store.h>

#include <exception>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "kernels/rendezvous.h"

namespace weft {

class FileRendezvous final : public Rendezvous {
 public:
  explicit FileRendezvous(const std::string& directory) : store_(directory) {}

  absl::Status Set(absl::string_view key, absl::string_view value) override {
    const absl::MutexLock lock(&mutex_);  // it keeps a list of its files
    try {
      store_.set(std::string(key), std::vector<char>(value.begin(), value.end()));
    } catch (const std::exception& error) {
      return absl::UnavailableError(error.what());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Get(absl::string_view key, absl::Duration timeout) override {
    const std::string name(key);
    try {
      store_.wait({name}, absl::ToChronoMilliseconds(timeout));
      const std::vector<char> value = store_.get(name);
      return std::string(value.begin(), value.end());
    } catch (const std::exception& error) {
      return absl::DeadlineExceededError(error.what());
    }
  }

 private:
  absl::Mutex mutex_;
  gloo::rendezvous::FileStore store_;
};

}  // namespace weft
