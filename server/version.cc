#include "server/version.h"

// The root CMakeLists.txt defines all four, for this file alone: a new commit compiles nothing else again.
#if !defined(WEFT_VERSION) || !defined(WEFT_COMMIT) || !defined(WEFT_BUILD_TYPE) || !defined(WEFT_COMPILER)
#error "the build must say what it builds"
#endif

namespace weft {

absl::string_view Version() { return sizeof(WEFT_COMMIT) > 1 ? WEFT_VERSION "+" WEFT_COMMIT : WEFT_VERSION; }

absl::string_view BuildInfo() { return WEFT_BUILD_TYPE ", " WEFT_COMPILER; }

}  // namespace weft
