// A client that reads its answer from the server's own TokenStreams: when it is woken, slowly, or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "server/metrics.h"
#include "server/token_stream.h"
#include "tests/simulator/sim_clock.h"
#include "tests/simulator/sim_request.h"

namespace weft {

// Of all choices of one request, as a Generation is.
class Reader {
 public:
  // `wake` is called when there is something to read. Clock and metrics outlive the reader and its streams.
  Reader(std::function<void()> wake, const SimClock& clock, Metrics& metrics);
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader() { waker_->Disarm(); }

  // The stream of one more choice, which the scheduler is to write to; the request outlives the reader.
  std::shared_ptr<TokenStream> Open(SimRequest& request);

  // Takes what has come, and checks that it is what was told.
  void Read();
  // The connection is lost: nobody reads, and nobody is to be woken, any more.
  void Leave();
  // Whether all that was told has been read, too.
  bool HasReadAll() const;
  bool has_left() const { return has_left_; }

 private:
  struct Choice {
    SimRequest* request = nullptr;
    std::shared_ptr<TokenStream> stream;  // shared with the sink
    size_t num_tokens = 0;                // read
    int num_scores = 0;
    std::optional<FinishEvent> finish;
  };

  static void ReadFrom(Choice& choice);

  const SimClock& clock_;
  Metrics& metrics_;
  bool has_left_ = false;
  const std::shared_ptr<StreamWaker> waker_;  // shared with the streams
  std::vector<Choice> choices_;
};

}  // namespace weft
