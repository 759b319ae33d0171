// A token chosen from a row of logits, as engines/choosing.py defines it, for
// draws that ask for temperature, filters and chance alone.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace influence {

struct Choice {
  float temperature = 0;  // 0: the largest logit, of equals the first
  int64_t top_k = 0;      // 0: all
  double top_p = 1;
  double min_p = 0;
};

// Owns what a draw works in. For one thread at a time.
class Chooser {
 public:
  // The index of the chosen logit; `chance` is in [0, 1). Nothing if the largest
  // logit is not a finite number.
  std::optional<int64_t> choose(std::span<const float> logits, const Choice& choice, double chance);

 private:
  // What a filter keeps: all weights above `value`, and of those equal to it the first `n_equal`.
  struct Cut {
    float value;
    int64_t n_equal;
  };

  void weigh(std::span<const float> logits, float peak, float temperature);
  Cut cut_after(int64_t k);
  Cut cut_at(double share);
  void fill_buckets();
  void gather(int64_t bucket);
  void drop_below(const Cut& cut);
  int64_t draw(double chance) const;

  std::vector<float> weights_;   // (n,) exp((logit - peak) / temperature); 0: dropped
  std::vector<int64_t> counts_;  // by bucket
  std::vector<double> sums_;     // by bucket
  std::vector<float> gathered_;  // the weights of one bucket, largest first
};

}  // namespace influence
