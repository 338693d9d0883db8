// What ranks count and do, on the wire.
#pragma once

#include "engine/engine_stats.h"
#include "engine/rank_activity.h"
#include "weft/v1/worker.pb.h"

namespace weft {

void WriteStats(const RankStats& stats, v1::RankStats& message);
// Of numbers that are missing, 0.
RankStats ReadStats(const v1::RankStats& message);

void WriteActivity(const RankActivity& activity, v1::RankActivity& message);
RankActivity ReadActivity(const v1::RankActivity& message);

}  // namespace weft
