// The part of World that stands for front ends: they reserve, push and cancel as GenerationService does.
#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "kernels/check.h"
#include "tests/simulator/world.h"

namespace weft {

// A place is reserved while the request is still being prepared.
void World::Arrive(size_t index) {
  Group& group = groups_[index];
  std::vector<SimRequest> choices = workload_.DrawGroup(static_cast<int>(scene_.requests.size()));
  const SimRequest first = choices.front();
  const auto count = static_cast<int64_t>(choices.size());
  auto answer = scene_.queue.Reserve(Workload::TenantName(first.tenant), first.priority, count);
  ledger_.OnReserve(first.tenant, count, answer);
  scene_.trace.Note("arrive", static_cast<int64_t>(scene_.requests.size()), count, first.tenant);
  if (const auto* refusal = std::get_if<Refusal>(&answer)) {
    scene_.trace.Note("  refused", static_cast<int64_t>(refusal->reason));
    ++totals_.num_refused;
    return;
  }
  for (SimRequest& choice : choices) {
    choice.id = static_cast<int64_t>(scene_.requests.size());
    group.requests.push_back(scene_.requests.size());
    scene_.requests.push_back(std::move(choice));
  }
  group.places.emplace(std::get<QueuePlaces>(std::move(answer)));
  group.index = index;
  group.stops_reading = first.stops_reading;
  group.reader = std::make_unique<Reader>(
      [this, index] {
        const bool is_slow = random_.Chance(0.5);
        if (!groups_[index].stops_reading)
          Schedule(is_slow ? random_.Between(0, 20 * scene_.plan.step_us) : 0, Kind::kRead, index);
      },
      scene_.clock, metrics_);
  Schedule(random_.Between(0, scene_.plan.clients.max_prepare_us), Kind::kPush, index);
}

bool World::MustFit(const SimRequest& request) const {
  const EngineLimits& limits = scene_.plan.limits;
  const int64_t num_tokens = request.num_prompt() + request.stop.max_tokens;
  return num_tokens <= limits.max_model_len && num_tokens <= int64_t{limits.num_blocks} * limits.block_size;
}

void World::PushGroup(size_t index) {
  Group& group = groups_[index];
  const SimRequest& first = scene_.requests[group.requests.front()];
  size_t num_pushed = 0;
  Do([&] {
    bool goes_on = !random_.Chance(scene_.plan.clients.is_abandoned);
    const bool fits = CheckFits(first.num_prompt(), first.stop.max_tokens, scene_.plan.limits).ok();
    CHECK(fits == MustFit(first), "what can never run is refused, and nothing else");
    goes_on = goes_on && fits;
    if (goes_on) {
      ledger_.OnTimeToFirstToken(first.tenant);
      const auto refusal =
          scene_.queue.CheckTimeToFirstToken(Workload::TenantName(first.tenant), first.priority, first.num_prompt());
      CHECK(!refusal.has_value() || scene_.plan.queue.max_time_to_first_token < absl::InfiniteDuration(),
            "nobody asked for a bound");
      goes_on = !refusal.has_value();
    }
    if (!goes_on) num_pushed = group.requests.size();
    if (!goes_on) ++totals_.num_refused;
    scene_.trace.Note("push", first.id, goes_on ? 1 : 0);
    if (goes_on) return;
    ledger_.OnReturn(first.tenant, static_cast<int64_t>(group.requests.size()));
    group.places.reset();
  });
  for (; num_pushed < group.requests.size(); ++num_pushed) {
    bool taken = false;
    Do([&] { taken = PushOne(group, scene_.requests[group.requests[num_pushed]]); });
    if (!taken) break;
  }
  if (!group.places.has_value()) return;
  Do([&] {
    ledger_.OnReturn(first.tenant, static_cast<int64_t>(group.requests.size() - num_pushed));
    group.places.reset();
  });
}

// False: the queue has been closed in the meantime.
bool World::PushOne(Group& group, SimRequest& request) {
  auto raw = std::make_unique<Request>();
  raw->id = request.id;
  raw->tenant = Workload::TenantName(request.tenant);
  raw->priority = request.priority;
  raw->arrival = scene_.clock.Now();
  if (request.patience < absl::InfiniteDuration()) raw->deadline = raw->arrival + request.patience;
  raw->prompt = request.prompt;
  raw->sampling = request.sampling;
  raw->stop = request.stop;
  raw->prefix_scope = request.scope;
  if (request.scope.has_value()) {
    raw->prefix_keys = PrefixKeys(*request.scope, request.prompt, scene_.plan.limits.block_size);
  }
  std::shared_ptr<TokenStream> stream = group.reader->Open(request);
  streams_.resize(std::max(streams_.size(), static_cast<size_t>(request.id) + 1));
  streams_[static_cast<size_t>(request.id)] = stream.get();
  raw->sink = std::make_shared<SimSink>(request, scene_.clock, scene_.told, scene_.asked, std::move(stream));
  const Request* const address = raw.get();
  request.deadline = raw->deadline;
  ledger_.BeforePush(request);
  if (!scene_.queue.Push(*group.places, raw)) {
    CHECK(scene_.queue.closed() && raw.get() == address, "only a closed queue refuses who has a place");
    return false;
  }
  request.raw = address;
  request.where = SimRequest::kWaiting;

  const auto place = std::upper_bound(scene_.live.begin(), scene_.live.end(), &request,
                                      [](const SimRequest* a, const SimRequest* b) { return a->id < b->id; });
  scene_.live.insert(place, &request);
  ledger_.AfterPush(request);
  ++totals_.num_requests;
  if (request.cancel_after_us < 0) return true;
  const Kind kind = random_.Of({Kind::kLeave, Kind::kLeave, Kind::kCancel, Kind::kStopString});
  Schedule(request.cancel_after_us, kind, kind == Kind::kLeave ? group.index : static_cast<size_t>(request.id));
  return true;
}

// The client disconnects.
void World::Leave(size_t index) {
  Group& group = groups_[index];
  group.reader->Leave();
  for (const size_t request : group.requests) {
    if (scene_.requests[request].IsUnfinished()) Cancel(scene_.requests[request]);
  }
}

// The reader wants no more of a stream, and nobody looks for it in the queue.
void World::SeeStopString(SimRequest& request) {
  if (request.num_tokens == 0) return;
  scene_.trace.Note("stop string", request.id);
  request.cancelled = true;
  streams_[static_cast<size_t>(request.id)]->CancelAfterStop();
}

// The server's patience ends.
void World::DropAll() {
  scene_.trace.Note("drop all");
  for (SimRequest* request : std::vector<SimRequest*>(scene_.live)) {
    request->aborted = true;
    streams_[static_cast<size_t>(request->id)]->Abort(absl::UnavailableError("shutting down"));
    Cancel(*request);
  }
}

// Who reads has read everything, and who stopped reading finds everything.
void World::CheckReaders() {
  for (const Group& group : groups_) {
    if (group.reader == nullptr || group.reader->has_left()) continue;
    CHECK(group.stops_reading || group.reader->HasReadAll(), "who waits for tokens is woken");
    group.reader->Read();
    CHECK(group.reader->HasReadAll(), "every stream has an end");
  }
}

void World::Cancel(SimRequest& request) {
  const bool waits = request.IsUnfinished() && request.where == SimRequest::kWaiting;
  scene_.trace.Note("cancel", request.id);
  request.cancelled = true;
  streams_[static_cast<size_t>(request.id)]->Cancel();
  CHECK(scene_.queue.Cancel(request.id) == waits, "who waits can be taken out, and nobody else");
  CHECK(request.finish.has_value() || !waits, "who is taken out has ended");
}

}  // namespace weft
