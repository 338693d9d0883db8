#include "server/choice_reader.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "server/api_error.h"

namespace weft {
namespace {

StopKind KindOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return StopKind::kStop;
    case FinishReason::kLength:
      return StopKind::kLength;
    case FinishReason::kCancelled:
      return StopKind::kCancelled;
    case FinishReason::kError:
      break;
  }
  return StopKind::kError;
}

// What a client may know: our own words, or that it was not the client's fault.
absl::Status PublicError(const absl::Status& status) {
  if (ErrorCode(status) != "internal_error") return status;
  return ApiError(absl::StatusCode::kInternal, "internal_error", "", "the server failed on this request");
}

}  // namespace

ChoiceReader::ChoiceReader(const Tokenizer& tokenizer, ChoiceOptions options)
    : tokenizer_(&tokenizer),
      options_(std::move(options)),
      detokenizer_(tokenizer, options_.skip_special_tokens),
      stop_matcher_(options_.stop, options_.include_stop) {
  if (!options_.continues_id.has_value()) return;
  // A decoder strips the space that begins a text, but this text goes on from the prompt's: show it the token before.
  // Special tokens begin a text anew, and a byte might wait for others and turn up in the answer.
  const int32_t id = *options_.continues_id;
  const bool known = id < tokenizer.vocab_size();  // embeddings may be padded beyond it
  const bool is_byte = known && absl::StartsWith(tokenizer.Spelling(id), "<0x");
  if (known && !tokenizer.IsSpecial(id) && !is_byte) detokenizer_.Push({id});
}

std::optional<Delta> ChoiceReader::Read(TokenStream::Taken taken) {
  Delta delta;
  delta.index = options_.index;
  for (size_t i = 0; i < taken.tokens.size() && !delta.finish.has_value(); ++i) {
    const int32_t id = taken.tokens[i];
    ++num_tokens_;
    held_.push_back({known_bytes_, id, std::nullopt});
    if (options_.wants_logprobs) held_.back().detail = std::move(taken.details[i]);
    Feed(detokenizer_.Push({id}), delta);
  }
  if (taken.finish.has_value() && !delta.finish.has_value()) FinishWith(*taken.finish, delta);
  Release(delta);
  if (delta.text.empty() && delta.token_ids.empty() && !delta.finish.has_value()) return std::nullopt;
  return delta;
}

void ChoiceReader::Feed(const std::string& text, Delta& delta) {
  known_bytes_ += static_cast<int64_t>(text.size());
  StopMatcher::Result result = stop_matcher_.Push(text);
  shown_bytes_ += static_cast<int64_t>(result.text.size());
  delta.text += result.text;
  if (!result.stop.has_value()) return;
  stopped_by_text_ = true;
  delta.finish = Finish{StopKind::kStop, options_.stop[*result.stop], absl::OkStatus()};
}

void ChoiceReader::FinishWith(const FinishEvent& event, Delta& delta) {
  Feed(detokenizer_.Finish(), delta);
  if (event.stop_token.has_value()) ++num_tokens_;
  if (delta.finish.has_value()) return;
  const std::string rest = stop_matcher_.Finish();
  shown_bytes_ += static_cast<int64_t>(rest.size());
  delta.text += rest;
  delta.finish = Finish{KindOf(event.reason), std::monostate(), absl::OkStatus()};
  if (event.reason == FinishReason::kError) delta.finish->status = PublicError(event.status);
  const std::vector<int32_t>& own = options_.stop_token_ids;
  if (event.stop_token.has_value() && std::find(own.begin(), own.end(), *event.stop_token) != own.end()) {
    delta.finish->stop_reason = *event.stop_token;
  }
}

// Gives out the tokens whose text has been shown, at least in part; at the end all, but for those that a stop string
// cut off.
void ChoiceReader::Release(Delta& delta) {
  const bool all = delta.finish.has_value() && !stopped_by_text_;
  while (!held_.empty() && (all || held_.front().text_begin < shown_bytes_)) {
    const HeldToken& held = held_.front();
    delta.token_ids.push_back(held.id);
    if (held.detail.has_value()) {
      GeneratedToken& token = delta.logprobs.emplace_back();
      token.token = Describe(held.id, held.detail->logprob);
      for (const TokenAndLogprob& top : held.detail->top_logprobs) {
        token.top_logprobs.push_back(Describe(top.token, top.logprob));
      }
    }
    held_.pop_front();
  }
}

TokenText ChoiceReader::Describe(int32_t id, float logprob) const { return {id, tokenizer_->TokenBytes(id), logprob}; }

}  // namespace weft
