// Framing of server-sent events, as the OpenAI API uses them: nothing but `data:` lines and comments.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace weft {

// `json` is one line, as DumpJson writes it.
inline void AppendSseEvent(absl::string_view json, std::string& out) {
  out.append("data: ").append(json.data(), json.size()).append("\n\n");
}

// The last event of every stream, also of one that failed: clients take a stream without it for a whole one.
inline constexpr absl::string_view kSseDone = "data: [DONE]\n\n";

// A comment: tells clients and proxies that a silent stream lives.
inline constexpr absl::string_view kSseKeepAlive = ": keep-alive\n\n";

}  // namespace weft
