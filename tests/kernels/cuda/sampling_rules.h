// Rows of logits and rules to draw from them by: at random, and with a liking for what is hard.
#pragma once

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "absl/types/span.h"
#include "kernels/sampling.h"

namespace weft {

// A rule, and the lists that its args refer to.
struct Rule {
  SampleArgs args;
  std::vector<TokenCount> counts;
  std::vector<LogitBias> biases;

  SampleArgs Args() const {
    SampleArgs complete = args;
    complete.counts = counts;
    complete.biases = biases;
    return complete;
  }
};

inline std::vector<SampleArgs> ArgsOf(const std::vector<Rule>& rules) {
  std::vector<SampleArgs> args;
  for (const Rule& rule : rules) args.push_back(rule.Args());
  return args;
}

class RandomRules {
 public:
  explicit RandomRules(uint32_t seed) : random_(seed) {}

  // [vocab]
  std::vector<float> Row(int32_t vocab) {
    std::vector<float> row(static_cast<size_t>(vocab));
    std::normal_distribution<float> normal(0, OneOf({0.01f, 0.5f, 2.0f, 5.0f, 20.0f}));
    const int kind = Below(10);
    for (float& logit : row) {
      logit = normal(random_);
      if (kind == 0) logit = std::round(logit);                    // ties, zeros of both signs among them
      if (kind == 1) logit = 3;                                    // nothing but ties
      if (kind == 2 && Below(3) == 0) logit = -kInf;               // gaps
      if (kind == 3 && Below(10) != 0) logit = -kInf;              // little left
      if (kind == 4) logit = std::round(logit * 4) / 4 - 1000.0f;  // far from zero
    }
    if (kind == 5 && Below(3) == 0) row[At(vocab)] = OneOf({NAN, -NAN, kInf});
    return row;
  }

  Rule RuleFor(int32_t vocab) {
    Rule rule;
    SampleArgs& args = rule.args;
    args.temperature = OneOf({0.0f, 1e-30f, 0.01f, 0.3f, 0.7f, 1.0f, 1.0f, 1.3f, 2.0f, 100.0f, 1e30f});
    if (Below(2) == 0) args.top_k = OneOf({1, 2, 5, 40, vocab / 2, vocab - 1, vocab, vocab + 7});
    if (Below(2) == 0) args.top_p = OneOf({0.0f, 1e-6f, 0.1f, 0.5f, 0.75f, 0.9f, 0.95f, 0.99f, 0.99999994f});
    if (Below(4) == 0) args.min_p = OneOf({0.001f, 0.05f, 0.3f, 1.0f, 2.0f});
    if (Below(4) == 0) AddPenalties(vocab, rule);
    if (Below(4) == 0) AddBiases(vocab, rule);
    args.seed = static_cast<uint64_t>(random_()) << 32 | random_();
    args.sequence = static_cast<uint32_t>(Below(4));
    args.position = Below(2) == 0 ? Below(100'000) : (int64_t{1} << 33) + Below(100);
    if (Below(4) == 0) args.num_logprobs = OneOf({0, 1, 2, 5, 20, vocab + 3});
    if (Below(12) == 0) args.known = static_cast<int32_t>(At(vocab));
    return rule;
  }

  template <typename T>
  T OneOf(std::initializer_list<T> values) {
    return std::data(values)[Below(static_cast<int>(values.size()))];
  }
  int Below(int limit) { return static_cast<int>(random_() % static_cast<uint32_t>(limit)); }
  size_t At(int32_t vocab) { return static_cast<size_t>(Below(vocab)); }

 private:
  static constexpr float kInf = std::numeric_limits<float>::infinity();

  void AddPenalties(int32_t vocab, Rule& rule) {
    rule.args.repetition_penalty = OneOf({1.0f, 1.3f, 0.8f, 2.0f});
    rule.args.presence_penalty = OneOf({0.0f, 0.7f, -0.5f});
    rule.args.frequency_penalty = OneOf({0.0f, 0.1f, 0.33f, -0.2f});
    for (int32_t token = Below(7); token < vocab + 5; token += 1 + Below(9)) {  // some are beyond the vocabulary
      rule.counts.push_back({token, Below(3), Below(4)});
    }
  }

  void AddBiases(int32_t vocab, Rule& rule) {
    const int kind = Below(4);
    const auto kept = static_cast<int32_t>(At(vocab));
    if (kind == 0) {  // all but one are banned, or all
      const bool are_all = Below(4) == 0;
      for (int32_t token = 0; token < vocab; ++token) {
        if (are_all || token != kept) rule.biases.push_back({token, -kInf});
      }
      return;
    }
    for (int i = Below(30); i >= 0; --i) {  // a token may come twice
      rule.biases.push_back(
          {static_cast<int32_t>(At(vocab + 3)), OneOf({-kInf, 1.7f, -2.1f, 0.1f, 100.0f, -100.0f, 3.3e-5f})});
    }
  }

  std::mt19937 random_;
};

}  // namespace weft
