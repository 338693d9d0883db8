// What ranks count, on the wire.
#pragma once

#include "engine/engine_stats.h"
#include "weft/v1/worker.pb.h"

namespace weft {

void WriteStats(const RankStats& stats, v1::RankStats& message);
// Of numbers that are missing, 0.
RankStats ReadStats(const v1::RankStats& message);

}  // namespace weft
