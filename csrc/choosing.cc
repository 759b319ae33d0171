// Bytes: a row of logits is read twice and written once as weights. Filters look
// for a cut in a histogram of the weights by size, so that no draw sorts a vocabulary.
#include "choosing.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>

namespace influence {
namespace {

// Floats from 0 to 1 are ordered as their bits are: 16 buckets for each power of two.
constexpr int kBucketShift = 19;
constexpr size_t kBuckets = (std::bit_cast<uint32_t>(1.0f) >> kBucketShift) + 1;

size_t bucket_of(float weight) { return std::bit_cast<uint32_t>(weight) >> kBucketShift; }

// The largest logit, NaN if there is one. In lanes, so that compilers take vectors for it.
float peak_of(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> largest;
  largest.fill(logits[0]);
  uint32_t has_nan = 0;
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) {
      float logit = logits[i + j];
      largest[j] = logit > largest[j] ? logit : largest[j];
      has_nan |= logit != logit;
    }
  }
  for (; i < logits.size(); ++i) {
    largest[0] = std::max(largest[0], logits[i]);
    has_nan |= logits[i] != logits[i];
  }
  return has_nan ? NAN : *std::max_element(largest.begin(), largest.end());
}

// e^x for x <= 0, within 2 units in the last place, the same on every machine:
// 2^n * e^r with n = round(x / ln 2), and Taylor's polynomial for |r| <= ln 2 / 2.
inline float exp_of(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: what is added to it loses its fraction
  constexpr float kLeast = -87.0f;       // a weight of 1e-38 is none
  float bounded = x < kLeast ? kLeast : x;
  float shifted = bounded * 1.44269504f + kRound;
  float n = shifted - kRound;
  float r =
      (bounded - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first short
  float p = 1.0f / 5040;
  for (float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) p = p * r + c;
  int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(kRound) + 127;
  return x < kLeast ? 0.0f : p * std::bit_cast<float>(exponent << 23);
}

}  // namespace

std::optional<int64_t> Chooser::choose(std::span<const float> logits, const Choice& choice,
                                       double chance) {
  float peak = peak_of(logits);
  if (!std::isfinite(peak)) return std::nullopt;
  if (choice.temperature == 0)
    return std::find(logits.begin(), logits.end(), peak) - logits.begin();
  weigh(logits, peak, choice.temperature);
  if (choice.top_k > 0 && choice.top_k < static_cast<int64_t>(logits.size())) {
    drop_below(cut_after(choice.top_k));
  }
  if (choice.top_p < 1) drop_below(cut_at(choice.top_p));
  if (choice.min_p > 0) {
    auto least = static_cast<float>(choice.min_p);  // of the likeliest, which weighs 1
    for (float& weight : weights_) weight = weight < least ? 0.0f : weight;
  }
  return draw(chance);
}

void Chooser::weigh(std::span<const float> logits, float peak, float temperature) {
  weights_.resize(logits.size());
  gathered_.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    weights_[i] = exp_of((logits[i] - peak) / temperature);
  }
}

void Chooser::fill_buckets() {
  counts_.assign(kBuckets, 0);
  sums_.assign(kBuckets, 0.0);
  for (float weight : weights_) {
    size_t bucket = bucket_of(weight);
    counts_[bucket] += 1;
    sums_[bucket] += weight;
  }
}

void Chooser::gather(int64_t bucket) {
  gathered_.clear();
  for (float weight : weights_) {
    if (static_cast<int64_t>(bucket_of(weight)) == bucket) gathered_.push_back(weight);
  }
  std::sort(gathered_.begin(), gathered_.end(), std::greater<>());
}

// The k largest; all that equal the k-th stay.
Chooser::Cut Chooser::cut_after(int64_t k) {
  fill_buckets();
  auto bucket = static_cast<int64_t>(kBuckets) - 1;
  for (; counts_[bucket] < k; --bucket) k -= counts_[bucket];
  gather(bucket);
  return {gathered_[k - 1], static_cast<int64_t>(weights_.size())};
}

// The fewest of the largest whose sum reaches `share` of the whole; at least one.
Chooser::Cut Chooser::cut_at(double share) {
  fill_buckets();
  double total = 0;
  for (double sum : sums_) total += sum;
  double wanted = share * total, reached = 0;
  auto bucket = static_cast<int64_t>(kBuckets) - 1;
  for (; bucket > 0 && (counts_[bucket] == 0 || reached + sums_[bucket] < wanted); --bucket) {
    reached += sums_[bucket];
  }
  gather(bucket);
  size_t last = 0;
  for (; last + 1 < gathered_.size(); ++last) {
    reached += gathered_[last];
    if (reached >= wanted) break;
  }
  float value = gathered_[last];
  auto first_equal = std::find(gathered_.begin(), gathered_.end(), value) - gathered_.begin();
  return {value, static_cast<int64_t>(last) + 1 - first_equal};
}

void Chooser::drop_below(const Cut& cut) {
  int64_t n_equal = cut.n_equal;
  for (float& weight : weights_) {
    if (weight > cut.value || (weight == cut.value && n_equal-- > 0)) continue;
    weight = 0;
  }
}

// The first index at which the running sum exceeds `chance` of the whole.
int64_t Chooser::draw(double chance) const {
  double total = 0, reached = 0;
  for (float weight : weights_) total += weight;
  int64_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0) continue;
    last = static_cast<int64_t>(i);
    reached += weights_[i];
    if (reached > chance * total) break;
  }
  return last;
}

}  // namespace influence
