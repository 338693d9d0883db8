#include "server/http_openai.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "kernels/status_macros.h"
#include "server/api_error.h"
#include "server/http_info.h"
#include "server/http_limits.h"
#include "server/openai_job.h"
#include "server/openai_response.h"
#include "server/sse.h"

namespace weft {
namespace {

// Runs `job` on the pool, with the service, if there is one; it is the last to see the request's body.
template <typename T>
asio::awaitable<absl::StatusOr<T>> Prepare(HttpExchange& exchange, BoundedPool& pool,
                                           std::function<absl::StatusOr<T>(GenerationService&)> job) {
  const absl::StatusOr<GenerationService*> service = ReadyService(exchange.context());
  if (!service.ok()) co_return service.status();
  std::function<absl::StatusOr<T>()> bound = [&job, &service] { return job(**service); };
  absl::StatusOr<T> result = co_await exchange.channel().RunOn<absl::StatusOr<T>>(pool, std::move(bound));
  exchange.DropBody();
  co_return std::move(result);
}

// The whole answer, or the first error of a choice.
absl::Status Append(Delta& delta, std::vector<WholeChoice>& choices) {
  WholeChoice& choice = choices[delta.index];
  choice.text += delta.text;
  for (GeneratedToken& token : delta.logprobs) choice.logprobs.push_back(std::move(token));
  if (!delta.finish.has_value()) return absl::OkStatus();
  choice.finish = *std::move(delta.finish);
  return FinishError(*choice.finish);
}

// When the client stops waiting: so many seconds after the request as its x-request-timeout says.
absl::StatusOr<absl::Time> DeadlineOf(const HttpRequest& request) {
  constexpr double kMostSeconds = 86400;
  if (request.timeout.empty()) return absl::InfiniteFuture();
  double seconds = 0;
  if (!absl::SimpleAtod(request.timeout, &seconds) || !(seconds > 0 && seconds <= kMostSeconds)) {
    return BadRequest("out_of_range", "x-request-timeout", "must be seconds, above 0 and at most 86400");
  }
  return absl::Now() + absl::Seconds(seconds);
}

asio::awaitable<void> AnswerWhole(HttpExchange& exchange, OpenAiJob& job, absl::Time deadline) {
  std::vector<WholeChoice> choices(job.num_choices());
  absl::Status status;
  while (status.ok() && !job.done()) {
    if (absl::Now() >= deadline) {
      status = DeadlinePassed();
      break;
    }
    std::vector<Delta> deltas = job.Take();
    for (Delta& delta : deltas) {
      if (status.ok()) status = Append(delta, choices);
    }
    exchange.set_usage(job.usage());
    if (!deltas.empty()) continue;
    if (exchange.channel().client_gone()) co_return exchange.NoteClientGone();
    const absl::Duration interval = exchange.context().options.keep_alive_interval;
    co_await exchange.channel().WaitForNews(std::min(deadline, absl::Now() + interval));
  }
  HttpResponse response;
  if (status.ok()) {
    response.body = job.answer().Whole(choices, job.usage());
  } else {
    response = ErrorResponse(status);
  }
  co_await exchange.Respond(std::move(response));
}

// Writes deltas as events.
class EventWriter {
 public:
  EventWriter(OpenAiApi api, OpenAiJob& job) : api_(api), job_(job), has_role_(job.num_choices()) {}

  // The events of one delta, appended to `out`. An error of a choice is returned, not written.
  absl::Status Write(const Delta& delta, std::string& out) {
    const bool ends = delta.finish.has_value();
    const absl::Status error = ends ? FinishError(*delta.finish) : absl::OkStatus();
    const bool has_content = !delta.text.empty() || !delta.logprobs.empty();
    // The role comes with the first token and no earlier: clients measure their time to first token by it.
    if (api_ == OpenAiApi::kChat && !has_role_[delta.index] && (has_content || (ends && error.ok()))) {
      has_role_[delta.index] = true;
      AppendSseEvent(job_.answer().Role(delta.index), out);
    }
    if (has_content) AppendSseEvent(job_.answer().Content(delta.index, delta.text, delta.logprobs), out);
    if (ends && error.ok()) AppendSseEvent(job_.answer().FinishChunk(delta.index, *delta.finish), out);
    return error;
  }

  // What comes after the last choice.
  void WriteEnd(const absl::Status& status, std::string& out) {
    if (!status.ok()) AppendSseEvent(DumpJson(ErrorJson(status)), out);
    if (status.ok() && job_.include_usage()) AppendSseEvent(job_.answer().UsageChunk(job_.usage()), out);
    out.append(kSseDone.data(), kSseDone.size());
  }

 private:
  const OpenAiApi api_;
  OpenAiJob& job_;
  std::vector<bool> has_role_;
};

asio::awaitable<void> AnswerStream(HttpExchange& exchange, OpenAiApi api, OpenAiJob& job, absl::Time deadline) {
  const absl::Duration interval = exchange.context().options.keep_alive_interval;
  EventWriter writer(api, job);
  absl::Time silence_ends = absl::Now() + interval;
  absl::Status status;
  bool ended = false;
  while (!ended) {
    if (exchange.channel().client_gone()) co_return exchange.NoteClientGone();
    std::string events;
    const std::vector<Delta> deltas = job.Take();
    for (const Delta& delta : deltas) {
      if (status.ok()) status = writer.Write(delta, events);
    }
    exchange.set_usage(job.usage());
    if (status.ok() && !job.done() && absl::Now() >= deadline) status = DeadlinePassed();
    if (!status.ok() && !exchange.streaming() && events.empty()) {
      HttpResponse refused =
          ErrorResponse(status);  // nothing was said yet, so the failure may have a status of its own
      co_await exchange.Respond(std::move(refused));
      co_return;
    }
    ended = job.done() || !status.ok();
    if (ended) writer.WriteEnd(status, events);
    if (events.empty() && absl::Now() >= silence_ends) events = std::string(kSseKeepAlive);
    if (!events.empty()) {
      if (!exchange.streaming()) exchange.BeginStream();
      const bool sent = co_await exchange.WriteStream(std::move(events));
      if (!sent) co_return;
      silence_ends = absl::Now() + interval;
      continue;
    }
    co_await exchange.channel().WaitForNews(std::min(deadline, silence_ends));
  }
  co_await exchange.EndStream();
}

absl::StatusOr<QueuePlaces> HoldPlace(HttpExchange& exchange) {
  ASSIGN_OR_RETURN(GenerationService * service, ReadyService(exchange.context()));
  return service->HoldPlace(exchange.tenant());
}

asio::awaitable<void> ServeGeneration(HttpExchange& exchange, OpenAiApi api) {
  const absl::StatusOr<absl::Time> deadline = DeadlineOf(exchange.request());
  if (!deadline.ok()) {
    co_await exchange.Refuse(deadline.status());
    co_return;
  }
  absl::StatusOr<QueuePlaces> held = HoldPlace(exchange);
  if (!held.ok()) {
    co_await exchange.Refuse(held.status());
    co_return;
  }
  std::optional<QueuePlaces> place(*std::move(held));
  GenerateRequest identity;
  identity.request_id = exchange.request_id();
  identity.tenant = exchange.tenant();
  identity.deadline = *deadline;
  std::function<absl::StatusOr<OpenAiJob>(GenerationService&)> start = [&](GenerationService& service) {
    place.reset();
    return OpenAiJob::Start(service, api, exchange.request().body, identity, exchange.channel().Waker());
  };
  absl::StatusOr<OpenAiJob> job =
      co_await Prepare<OpenAiJob>(exchange, exchange.context().preparing_pool, std::move(start));
  if (!job.ok() && exchange.channel().client_gone()) {
    exchange.NoteClientGone();
  } else if (!job.ok()) {
    co_await exchange.Refuse(job.status());
  } else if (job->stream()) {
    co_await AnswerStream(exchange, api, *job, *deadline);
  } else {
    co_await AnswerWhole(exchange, *job, *deadline);
  }
}

absl::Status CheckModel(const GenerationService& service, absl::string_view name) {
  if (service.ServesModel(name)) return absl::OkStatus();
  return ApiError(absl::StatusCode::kNotFound, "model_not_found", "model", "The model does not exist.");
}

absl::StatusOr<Json> Tokenize(GenerationService& service, absl::string_view body) {
  const absl::StatusOr<Json> json = ParseJsonObject(body);
  if (!json.ok()) return json.status();
  const absl::StatusOr<TokenizeRequest> request = ParseTokenizeRequest(*json);
  if (!request.ok()) return request.status();
  if (absl::Status known = CheckModel(service, request->model); !known.ok()) return known;
  const absl::StatusOr<std::vector<int32_t>> ids = service.Tokenize(request->prompt, request->add_special_tokens);
  if (!ids.ok()) return ids.status();
  Json out = {{"count", ids->size()}, {"max_model_len", service.model().max_model_len}, {"tokens", *ids}};
  Json& strings = out["token_strs"] = nullptr;
  if (request->return_token_strs) {
    strings = Json::array();
    for (const int32_t id : *ids) strings.push_back(service.TokenBytes(id));
  }
  return out;
}

absl::StatusOr<Json> Detokenize(GenerationService& service, absl::string_view body) {
  const absl::StatusOr<Json> json = ParseJsonObject(body);
  if (!json.ok()) return json.status();
  const absl::StatusOr<DetokenizeRequest> request = ParseDetokenizeRequest(*json);
  if (!request.ok()) return request.status();
  if (absl::Status known = CheckModel(service, request->model); !known.ok()) return known;
  absl::StatusOr<std::string> text = service.Detokenize(request->tokens);
  if (!text.ok()) return text.status();
  return Json{{"prompt", *std::move(text)}};
}

asio::awaitable<void> ServeText(HttpExchange& exchange,
                                absl::StatusOr<Json> (*convert)(GenerationService&, absl::string_view)) {
  std::function<absl::StatusOr<HttpResponse>(GenerationService&)> job =
      [&exchange, convert](GenerationService& service) -> absl::StatusOr<HttpResponse> {
    const absl::StatusOr<Json> json = convert(service, exchange.request().body);
    if (!json.ok()) return json.status();
    HttpResponse response;
    response.body = DumpJson(*json);
    return response;
  };
  absl::StatusOr<HttpResponse> response =
      co_await Prepare<HttpResponse>(exchange, exchange.context().converting_pool, std::move(job));
  if (!response.ok()) {
    co_await exchange.Refuse(response.status());
    co_return;
  }
  HttpResponse answer = *std::move(response);
  co_await exchange.Respond(std::move(answer));
}

}  // namespace

asio::awaitable<void> ServeChatCompletions(HttpExchange& exchange) {
  co_await ServeGeneration(exchange, OpenAiApi::kChat);
}

asio::awaitable<void> ServeCompletions(HttpExchange& exchange) {
  co_await ServeGeneration(exchange, OpenAiApi::kCompletion);
}

asio::awaitable<void> ServeTokenize(HttpExchange& exchange) { co_await ServeText(exchange, Tokenize); }

asio::awaitable<void> ServeDetokenize(HttpExchange& exchange) { co_await ServeText(exchange, Detokenize); }

}  // namespace weft
