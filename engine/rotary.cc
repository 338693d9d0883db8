#include "engine/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace weft {
namespace {

using Kind = RopeScaling::Kind;

// base^(-2i / dim), RoFormer (arXiv 2104.09864) section 3.2.2.
std::vector<float> TrainedFrequencies(double base, int dim) {
  std::vector<float> frequencies;
  for (int i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    frequencies.push_back(1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent))));
  }
  return frequencies;
}

// Position interpolation (arXiv 2306.15595): positions / factor, which is frequencies / factor.
void ScaleLinear(const RopeScaling& scaling, std::vector<float>& frequencies) {
  for (float& frequency : frequencies) frequency /= static_cast<float>(scaling.factor);
}

// "NTK-aware" scaling (YaRN, arXiv 2309.00071, section 3.1 and "Dynamic Scaling"): the base grows with the sequence.
double DynamicBase(const ModelConfig& config, int64_t length) {
  const RopeScaling& scaling = config.rope_scaling;
  const auto original = static_cast<double>(scaling.original_max_position_embeddings);
  const double growth = std::max(static_cast<double>(length) / original, 1.0);
  const double dim = config.head_dim;
  return config.rope_theta * std::pow(scaling.factor * growth - (scaling.factor - 1), dim / (dim - 2));
}

// Llama 3.1: wavelengths beyond original / low_freq_factor are interpolated, those below original / high_freq_factor
// kept, and those between blended (meta-llama/llama-models, apply_scaling).
void ScaleLlama3(const RopeScaling& scaling, std::vector<float>& frequencies) {
  const auto original = static_cast<double>(scaling.original_max_position_embeddings);
  for (float& frequency : frequencies) {
    const double wavelength = 2 * std::numbers::pi / frequency;
    if (wavelength < original / scaling.high_freq_factor) continue;
    const double interpolated = frequency / scaling.factor;
    const double share =
        (original / wavelength - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    const double kept = wavelength > original / scaling.low_freq_factor ? 0.0 : share;
    frequency = static_cast<float>((1 - kept) * interpolated + kept * frequency);
  }
}

// The dimension that turns `rotations` times over the trained context (YaRN, arXiv 2309.00071, section 3.2).
double CorrectionDim(const ModelConfig& config, double rotations) {
  const auto original = static_cast<double>(config.rope_scaling.original_max_position_embeddings);
  return config.head_dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(config.rope_theta));
}

// YaRN, "NTK-by-parts": dimensions that turn often are kept, those that turn less than once are interpolated, with a
// linear ramp between.
void ScaleYarn(const ModelConfig& config, std::vector<float>& frequencies) {
  const RopeScaling& scaling = config.rope_scaling;
  double low = CorrectionDim(config, scaling.beta_fast);
  double high = CorrectionDim(config, scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.head_dim - 1.0);
  if (low == high) high += 0.001;  // no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double interpolated_share = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const double frequency = frequencies[i];
    frequencies[i] =
        static_cast<float>(frequency / scaling.factor * interpolated_share + frequency * (1 - interpolated_share));
  }
}

// YaRN section 3.4, 0.1 ln(factor) + 1, with the multipliers that DeepSeek added.
double YarnAttentionFactor(const RopeScaling& scaling) {
  const auto magnitude = [&](double multiplier) {
    return scaling.factor <= 1 ? 1.0 : 0.1 * multiplier * std::log(scaling.factor) + 1.0;
  };
  if (scaling.attention_factor.has_value()) return *scaling.attention_factor;
  const double numerator = scaling.mscale.value_or(0);
  const double denominator = scaling.mscale_all_dim.value_or(0);
  if (numerator != 0 && denominator != 0) return magnitude(numerator) / magnitude(denominator);
  return magnitude(1);
}

std::vector<float> Frequencies(const ModelConfig& config, int64_t max_positions) {
  const RopeScaling& scaling = config.rope_scaling;
  const double base = scaling.kind == Kind::kDynamic ? DynamicBase(config, max_positions) : config.rope_theta;
  std::vector<float> frequencies = TrainedFrequencies(base, config.head_dim);
  if (scaling.kind == Kind::kLinear) ScaleLinear(scaling, frequencies);
  if (scaling.kind == Kind::kLlama3) ScaleLlama3(scaling, frequencies);
  if (scaling.kind == Kind::kYarn) ScaleYarn(config, frequencies);
  return frequencies;
}

}  // namespace

std::vector<float> MakeCosSinTable(const ModelConfig& config, int64_t max_positions) {
  const std::vector<float> frequencies = Frequencies(config, max_positions);
  const size_t half = frequencies.size();
  const bool yarn = config.rope_scaling.kind == Kind::kYarn;
  const float factor = yarn ? static_cast<float>(YarnAttentionFactor(config.rope_scaling)) : 1.0f;
  std::vector<float> table(static_cast<size_t>(max_positions) * 2 * half);
  for (size_t position = 0; position < static_cast<size_t>(max_positions); ++position) {
    float* row = table.data() + position * 2 * half;
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position) * frequencies[i];
      row[i] = std::cos(angle) * factor;
      row[half + i] = std::sin(angle) * factor;
    }
  }
  return table;
}

}  // namespace weft
