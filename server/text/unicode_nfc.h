#pragma once

#include "server/text/tokenizer_marked_text.h"

namespace weft {

// Unicode normalisation form C (UAX #15), by the tables of unicode_tables.py. O(n log n) in the longest run of
// combining marks, linear otherwise.
MarkedText NormalizeNfc(MarkedText input);

}  // namespace weft
