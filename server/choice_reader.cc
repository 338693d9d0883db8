#include "server/choice_reader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "scheduler/dispatcher.h"
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

int64_t NumChars(absl::string_view utf8) {
  return std::count_if(utf8.begin(), utf8.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

// What a client may know: our own words, what the scheduler says in its own, or that it was not the client's fault.
absl::Status PublicError(const absl::Status& status) {
  if (ErrorCode(status) != "internal_error") return status;
  if (absl::IsDeadlineExceeded(status)) return DeadlinePassed();
  if (IsQuarantined(status)) {
    return ApiError(absl::StatusCode::kInternal, "request_caused_failure", "",
                    "the server failed each time it ran this request, so it is not tried again");
  }
  return ApiError(absl::StatusCode::kInternal, "internal_error", "", "the server failed on this request");
}

}  // namespace

absl::Status FinishError(const Finish& finish) {
  switch (finish.kind) {
    case StopKind::kStop:
    case StopKind::kLength:
      return absl::OkStatus();
    case StopKind::kCancelled:  // not by this client, which still listens
      return ApiError(absl::StatusCode::kUnavailable, "shutting_down", "", "The server is shutting down.");
    case StopKind::kError:
      break;
  }
  return finish.status.ok() ? absl::InternalError("a choice failed without a reason") : finish.status;
}

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
  scores_.insert(scores_.end(), std::make_move_iterator(taken.scores.begin()),
                 std::make_move_iterator(taken.scores.end()));
  for (size_t i = 0; i < taken.tokens.size() && !delta.finish.has_value(); ++i) {
    const int32_t id = taken.tokens[i];
    ++num_tokens_;
    const std::string text = detokenizer_.Push({id});
    held_.push_back({known_bytes_, id, NumChars(text), std::nullopt});
    if (options_.wants_logprobs) held_.back().detail = std::move(taken.details[i]);
    Feed(text, delta);
  }
  if (taken.finish.has_value() && !delta.finish.has_value()) FinishWith(*taken.finish, delta);
  Release(delta);
  if (delta.text.empty() && delta.token_ids.empty() && !delta.finish.has_value()) return std::nullopt;
  return delta;
}

void ChoiceReader::Feed(const std::string& text, Delta& delta) {
  known_bytes_ += static_cast<int64_t>(text.size());
  const bool may_stop = num_tokens_ > options_.min_tokens;
  StopMatcher::Result result = may_stop ? stop_matcher_.Push(text) : StopMatcher::Result{text, std::nullopt};
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
    if (held.detail.has_value()) delta.logprobs.push_back(Describe(*held.detail, held.num_chars));
    held_.pop_front();
  }
}

std::vector<GeneratedToken> ChoiceReader::TakePrompt(const std::vector<int32_t>& ids, bool shows_special) {
  IncrementalDetokenizer detokenizer(*tokenizer_, /*skip_special=*/!shows_special);
  std::vector<GeneratedToken> out;
  for (size_t i = 0; i < ids.size() && i <= scores_.size(); ++i) {
    const int64_t num_chars = NumChars(detokenizer.Push({ids[i]}));
    out.push_back(Describe(i == 0 ? SampledToken{.token = ids[i]} : scores_[i - 1], num_chars));
  }
  out.front().has_logprob = false;
  scores_ = {};
  return out;
}

GeneratedToken ChoiceReader::Describe(const SampledToken& token, int64_t num_chars) const {
  GeneratedToken out{.token = TextOf(token.token, token.logprob), .top_logprobs = {}, .num_chars = num_chars};
  for (const TokenAndLogprob& top : token.top_logprobs) out.top_logprobs.push_back(TextOf(top.token, top.logprob));
  return out;
}

TokenText ChoiceReader::TextOf(int32_t id, float logprob) const { return {id, tokenizer_->TokenBytes(id), logprob}; }

}  // namespace weft
