// How the process ends, for scripts and orchestrators.
#pragma once

namespace weft {

inline constexpr int kExitOk = 0;
inline constexpr int kExitEngineDied = 1;
inline constexpr int kExitUsage = 64;   // EX_USAGE of sysexits.h
inline constexpr int kExitConfig = 78;  // EX_CONFIG: settings or a model directory that can't be served

}  // namespace weft
