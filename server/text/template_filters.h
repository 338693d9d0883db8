// The filter tables that template_filters.cc joins.
#pragma once

#include <vector>

#include "server/text/template_function.h"

namespace weft {

const std::vector<TemplateFunction>& TemplateTextFilters();
const std::vector<TemplateFunction>& TemplateSequenceFilters();

}  // namespace weft
