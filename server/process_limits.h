#pragma once

namespace weft {

// As many files as the system lets us have, for connections. No core files: they would hold prompts. No death by a
// reader that closes its end.
void SetProcessLimits();

}  // namespace weft
