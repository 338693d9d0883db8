// A request under way, as a front end sees it: deltas of text and at the end of each choice a reason.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/choice_reader.h"
#include "server/token_stream.h"

namespace weft {

class GenerationService;

struct Usage {
  int64_t prompt_tokens = 0;      // once for all n choices
  int64_t completion_tokens = 0;  // of all choices: what was drawn up to each one's end, a drawn stop token included
  int64_t cached_tokens = 0;      // of the prompt: computed for others before
};

// Owned by the front end's connection; destruction cancels what still runs, and its blocks are free within two steps.
// Used by one thread at a time. Must not outlive its GenerationService.
class Generation {
 public:
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // What has arrived since the last call, in order for each choice. Never blocks; empty when nothing is new. Where echo
  // was asked for, each choice's first delta begins with prompt_text(), and with the prompt's log-probabilities if
  // these were asked for too.
  std::vector<Delta> Take();

  bool done() const { return num_open_ == 0; }  // every choice's finish has been taken
  Usage usage() const;
  const std::vector<int32_t>& prompt_ids() const { return prompt_ids_; }
  const std::string& prompt_text() const { return prompt_text_; }  // empty unless echo was asked for
  int64_t num_scores() const { return num_scores_; }               // log-probabilities that come with the echo

 private:
  friend class GenerationService;

  struct Choice {
    int64_t request_id;  // the scheduler's
    std::shared_ptr<TokenStream> stream;
    ChoiceReader reader;
    bool open = true;     // its finish has not been taken
    bool echoed = false;  // the prompt's text has been given, or none was wanted
  };

  Generation(GenerationService& service, std::function<void()> wake)
      : service_(service), waker_(std::make_shared<StreamWaker>(std::move(wake))) {}
  void TakeFrom(Choice& choice, std::vector<Delta>& deltas);
  void Echo(Choice& choice, Delta& first, std::vector<Delta>& deltas);

  GenerationService& service_;
  std::shared_ptr<StreamWaker> waker_;  // shared with the streams
  std::vector<Choice> choices_;
  int num_open_ = 0;
  std::vector<int32_t> prompt_ids_;
  std::string prompt_text_;
  int64_t num_scores_ = 0;
  bool prompt_shows_special_ = false;  // prompt_text_ spells special tokens out
};

}  // namespace weft
