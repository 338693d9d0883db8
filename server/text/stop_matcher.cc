#include "server/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace weft {

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool include_stop) : include_stop_(include_stop) {
  for (const std::string& text : stops) {
    Stop stop{text, std::vector<size_t>(text.size(), 0)};
    for (size_t i = 1, border = 0; i < text.size(); ++i) {
      while (border > 0 && text[i] != text[border]) border = stop.fallback[border - 1];
      if (text[i] == text[border]) ++border;
      stop.fallback[i] = border;
    }
    stops_.push_back(std::move(stop));
  }
}

void StopMatcher::Advance(Stop& stop, char c) {
  if (stop.text.empty()) return;
  while (stop.num_matched > 0 && stop.text[stop.num_matched] != c)
    stop.num_matched = stop.fallback[stop.num_matched - 1];
  if (stop.text[stop.num_matched] == c) ++stop.num_matched;
}

std::optional<size_t> StopMatcher::FindMatch() const {
  std::optional<size_t> found;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const std::string& text = stops_[i].text;
    if (text.empty() || stops_[i].num_matched < text.size()) continue;
    if (!found.has_value() || text.size() > stops_[*found].text.size()) found = i;
  }
  return found;
}

StopMatcher::Result StopMatcher::Push(absl::string_view text) {
  if (is_done_) return {};
  for (const char c : text) {
    held_ += c;
    for (Stop& stop : stops_) Advance(stop, c);
    const std::optional<size_t> match = FindMatch();
    if (!match.has_value()) continue;
    is_done_ = true;
    if (!include_stop_) held_.resize(held_.size() - stops_[*match].text.size());
    return {std::exchange(held_, ""), match};
  }
  size_t num_held = 0;
  for (const Stop& stop : stops_) num_held = std::max(num_held, stop.num_matched);
  Result result{held_.substr(0, held_.size() - num_held), std::nullopt};
  held_.erase(0, result.text.size());
  return result;
}

std::string StopMatcher::Finish() {
  is_done_ = true;
  return std::exchange(held_, "");
}

}  // namespace weft
