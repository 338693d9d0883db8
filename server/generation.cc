#include "server/generation.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "server/generation_service.h"

namespace weft {
namespace {

constexpr size_t kEchoTokens = 256;  // in one delta; with 20 alternatives each, some 100 KB as a message

}  // namespace

Generation::~Generation() {
  service_.Forget(*this);
  waker_->Disarm();  // first, because what follows finishes streams
  for (Choice& choice : choices_) {
    if (choice.open) service_.Cancel(choice.request_id, *choice.stream);
  }
}

std::vector<Delta> Generation::Take() {
  waker_->Arm();
  std::vector<Delta> deltas;
  for (Choice& choice : choices_) {
    if (choice.open) TakeFrom(choice, deltas);
  }
  return deltas;
}

void Generation::TakeFrom(Choice& choice, std::vector<Delta>& deltas) {
  std::optional<Delta> delta = choice.reader.Read(choice.stream->Take());
  if (!delta.has_value()) return;
  const bool failed = delta->finish.has_value() && !FinishError(*delta->finish).ok();
  if (!choice.echoed && !failed) Echo(choice, *delta, deltas);
  if (choice.reader.stopped_by_text()) choice.stream->CancelAfterStop();
  if (delta->finish.has_value()) {
    choice.open = false;
    if (--num_open_ == 0) service_.Forget(*this);
  }
  deltas.push_back(*std::move(delta));
}

// The prompt comes before the first delta's text. Where it was scored, its tokens go in deltas of their own, none of
// which is too large for one message.
void Generation::Echo(Choice& choice, Delta& first, std::vector<Delta>& deltas) {
  choice.echoed = true;
  if (num_scores_ == 0) {
    first.text.insert(0, prompt_text_);
    return;
  }
  std::vector<GeneratedToken> tokens = choice.reader.TakePrompt(prompt_ids_, prompt_shows_special_);
  for (size_t begin = 0; begin < tokens.size(); begin += kEchoTokens) {
    const size_t end = std::min(begin + kEchoTokens, tokens.size());
    Delta& part = deltas.emplace_back();
    part.index = first.index;
    if (begin == 0) part.text = prompt_text_;
    part.logprobs.assign(std::make_move_iterator(tokens.begin() + static_cast<std::ptrdiff_t>(begin)),
                         std::make_move_iterator(tokens.begin() + static_cast<std::ptrdiff_t>(end)));
  }
}

Usage Generation::usage() const {
  Usage usage;
  usage.prompt_tokens = static_cast<int64_t>(prompt_ids_.size());
  // The first choice's: the others also found what the first one computed.
  usage.cached_tokens = choices_.front().stream->num_cached_tokens();
  for (const Choice& choice : choices_) usage.completion_tokens += choice.reader.num_tokens();
  return usage;
}

}  // namespace weft
