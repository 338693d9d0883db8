#include "engine/rank_activity.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace weft {

std::string Describe(const RankActivity& activity) {
  const auto& [rank, step, in_step, group, wait] = activity;
  if (!in_step && step < 0) return absl::StrCat("rank ", rank, " has begun no step");
  if (!in_step) return absl::StrCat("rank ", rank, " has done step ", step, " and begun no other");
  if (!wait.has_value()) return absl::StrCat("rank ", rank, " computes in step ", step);
  const std::string members =
      wait->missing.empty() ? "" : absl::StrCat("for member ", absl::StrJoin(wait->missing, ", "), " of ");
  return absl::StrFormat("rank %d waits %s%s in step %d, %s %d (%d bytes) for %.1f s", rank,
                         members.empty() ? "in " : members, "its " + group, step, CommOpName(wait->op), wait->number,
                         wait->bytes, absl::ToDoubleSeconds(wait->elapsed));
}

}  // namespace weft
