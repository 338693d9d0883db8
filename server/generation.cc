#include "server/generation.h"

#include <optional>
#include <utility>

#include "server/generation_service.h"

namespace weft {

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
  if (!std::exchange(choice.echoed, true)) delta->text.insert(0, prompt_text_);
  if (choice.reader.stopped_by_text()) choice.stream->CancelAfterStop();
  if (delta->finish.has_value()) {
    choice.open = false;
    if (--num_open_ == 0) service_.Forget(*this);
  }
  deltas.push_back(*std::move(delta));
}

Usage Generation::usage() const {
  Usage usage;
  usage.prompt_tokens = static_cast<int64_t>(prompt_ids_.size());
  for (const Choice& choice : choices_) usage.completion_tokens += choice.reader.num_tokens();
  return usage;
}

}  // namespace weft
