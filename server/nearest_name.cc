#include "server/nearest_name.h"

#include <algorithm>
#include <numeric>

namespace weft {
namespace {

// Levenshtein's, one row of his table at a time.
int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const int replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string NearestName(absl::string_view given, const std::vector<std::string>& names) {
  return *std::min_element(names.begin(), names.end(), [given](const std::string& a, const std::string& b) {
    return EditDistance(given, a) < EditDistance(given, b);
  });
}

}  // namespace weft
