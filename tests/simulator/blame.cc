#include "tests/simulator/blame.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace weft {

namespace {

// It has been killed at this place before, but not often.
bool IsChance(SimRequest& request) {
  if (request.num_tokens > std::exchange(request.killed_at, request.num_tokens)) request.num_kills = 0;
  return ++request.num_kills <= Dispatcher::kMaxKills;
}

}  // namespace

// One that was suspected before is to blame; the others are suspects from now on. Whoever was in a step of so many that
// died is not tried again.
void Blame::OnDeath(const std::vector<SimRequest*>& in_steps, bool from_outside) {
  std::vector<SimRequest*> there;
  for (SimRequest* request : in_steps) {
    const bool is_quarantined = request->finish.has_value() && IsQuarantined(request->finish->status);
    if (!request->finish.has_value() || is_quarantined) there.push_back(request);  // the others were about to leave
  }
  for (SimRequest* request : there) {
    if (from_outside && IsChance(*request)) {
      CHECK(!request->finish.has_value(), "who was killed from outside goes on");
      continue;
    }
    const bool is_to_blame = request->IsSuspect() || ++request->num_deaths >= Dispatcher::kMaxDeaths;
    CHECK(is_to_blame == request->finish.has_value(), "a suspect is quarantined, and nobody else");
    if (is_to_blame) quarantined_.push_back(request);
    request->suspect_until = request->num_tokens;
  }
}

void Blame::CheckStep(const std::vector<SimRequest*>& rows) {
  const auto num_suspects = std::count_if(rows.begin(), rows.end(), [](const auto* row) { return row->IsSuspect(); });
  CHECK(num_suspects <= 1, "no two suspects share a step");
}

void Blame::CheckErrors() {
  for (const Told& told : scene_.told) {
    const SimRequest& request = *told.request;
    if (told.what != Told::What::kFinish || request.finish->reason != FinishReason::kError) continue;
    const absl::Status& status = request.finish->status;
    if (absl::IsDeadlineExceeded(status)) continue;
    if (absl::IsUnavailable(status)) {
      CHECK(scene_.failed, "only when no replica is left");
      continue;
    }
    const bool is_quarantined = std::find(quarantined_.begin(), quarantined_.end(), &request) != quarantined_.end();
    CHECK(IsQuarantined(status) ? is_quarantined : request.NanIsNext(), "an error has a reason");
  }
  quarantined_.clear();
}

}  // namespace weft
