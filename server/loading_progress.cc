#include "server/loading_progress.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr int kLogPercent = 10;
constexpr absl::Duration kShortestLogInterval = absl::Seconds(1);
constexpr absl::Duration kLongestLogInterval = absl::Seconds(5);

}  // namespace

LoadingProgress LoadingReporter::Progress() {
  return {.on_phase = [this](absl::string_view phase, absl::Duration took, double done) { OnPhase(phase, took, done); },
          .on_part =
              [this](absl::string_view part, absl::Duration took) {
                spdlog::info("of it {}: {:.3f} s", std::string(part), absl::ToDoubleSeconds(took));
                metrics_.SetStartupSeconds(part, took);
              },
          .on_share = [this](absl::string_view phase, double share, double done) { OnShare(phase, share, done); }};
}

void LoadingReporter::OnPhase(absl::string_view phase, absl::Duration took, double done) {
  spdlog::info("loaded {} in {:.3f} s", std::string(phase), absl::ToDoubleSeconds(took));
  metrics_.SetStartupSeconds(phase, took);
  metrics_.SetLoadingProgress(done);
  health_.Set({Health::kLoading, absl::StrCat("loaded ", phase), done});
}

void LoadingReporter::OnShare(absl::string_view phase, double share, double done) {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = absl::Now();
  if (phase_ != phase) {
    phase_ = std::string(phase);
    shown_percent_ = -1;
    logged_percent_ = 0;
    logged_at_ = now;
  }
  const auto percent = static_cast<int>(share * 100);
  if (percent <= shown_percent_) return;
  shown_percent_ = percent;
  metrics_.SetLoadingProgress(done);
  health_.Set({Health::kLoading, absl::StrCat("loading ", phase, ", ", percent, " %"), done});
  const bool is_soon = percent < logged_percent_ + kLogPercent;
  if (now < logged_at_ + (is_soon ? kLongestLogInterval : kShortestLogInterval)) return;
  logged_percent_ = percent;
  logged_at_ = now;
  spdlog::info("loading {}, {} %", phase_, percent);
}

}  // namespace weft
