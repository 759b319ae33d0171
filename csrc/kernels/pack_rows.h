// Weights into the panels of packed.h: what `pack_row` of every table does. Plain
// loops that each table compiles with its own flags, and that therefore give the
// same bytes in all of them: nothing here may be reordered. Bound by arithmetic: q8
// a few operations a weight; q4 some 45 for each of eight scales that it tries.
// Anonymous: see simd_avx512.h.
#pragma once

#include <float.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

namespace influence {
namespace {

constexpr float kLargest = 127;  // of a byte's values, on both sides
constexpr float kNaN = __builtin_nanf("");

inline bool is_nan(float x) { return x != x; }
inline float larger(float a, float b) { return b > a ? b : a; }
inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

// The bits of the nearest bfloat16, ties to even; of a finite number or NaN.
uint16_t to_bfloat16(float x) {
  const auto bits = bits_of(x);
  if (is_nan(x)) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bfloat16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float x;
  memcpy(&x, &wide, sizeof(x));
  return x;
}

// A group's scale as it is stored, and what divides by it.
struct Scale {
  uint16_t bits;
  float inverse;

  explicit Scale(float scale) : bits(to_bfloat16(scale)) {
    const float stored = from_bfloat16(bits);
    inverse =
        fabsf(stored) >= FLT_MIN && fabsf(stored) <= FLT_MAX ? 1 / stored : 0;  // 0: all become 0
  }
};

float largest_of(const float* weights, int64_t n) {  // NaN if one is no number
  float largest = 0;
  float total = 0;
  for (int64_t i = 0; i < n; ++i) {
    largest = larger(largest, fabsf(weights[i]));
    total += weights[i] * 0.0f;
  }
  return total == 0 ? largest : kNaN;
}

// ---- q8: the largest weight of a group is 127 ----

constexpr int64_t kQ8Cols = group_cols(DType::kQ8);

void pack_q8(const float* weights,             // (kQ8Cols,)
             uint16_t* scale, uint8_t* quads)  // of the row
{
  constexpr float kRounder =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest whole number
  const Scale chosen(largest_of(weights, kQ8Cols) / kLargest);
  *scale = chosen.bits;
  uint8_t bytes[kQ8Cols];
  for (int64_t k = 0; k < kQ8Cols; ++k) {
    float value = weights[k] * chosen.inverse;
    value = value > kLargest ? kLargest : value < -kLargest ? -kLargest : value;
    value = (value + kRounder) - kRounder;
    bytes[k] = value == value ? static_cast<uint8_t>(static_cast<int>(value) + 128) : 128;
  }
  for (int64_t k = 0; k < kQ8Cols; k += 4) memcpy(quads + k / 4 * kQuadBytes, bytes + k, 4);
}

// ---- q4: the scale that loses least ----

constexpr int64_t kQ4Cols = group_cols(DType::kQ4);
constexpr int kPackSums = 8;

// What a code stands for, and the border between it and the next one.
constexpr float value_of(int code) { return static_cast<float>(kQ4Values[code] - 128); }
constexpr float border_after(int code) { return (value_of(code) + value_of(code + 1)) / 2; }

// The codes nearest to a group's weights at one scale. How many borders a weight
// lies above is its code: comparisons without a branch, many weights at once.
struct Q4Group {
  float values[kQ4Cols];
  float products = 0;  // sum of importance * weight * value
  float squares = 0;   // sum of importance * value^2

  Q4Group(const float* weights, const float* importance, const Scale& scale) {
    float scaled[kQ4Cols];
    for (int64_t k = 0; k < kQ4Cols; ++k) {
      scaled[k] = weights[k] * scale.inverse;
      values[k] = value_of(0);
    }
    for (int code = 0; code < 15; ++code) {
      const float border = border_after(code);
      const float step = value_of(code + 1) - value_of(code);
      for (int64_t k = 0; k < kQ4Cols; ++k) values[k] += scaled[k] > border ? step : 0.0f;
    }
    float product[kPackSums] = {};
    float square[kPackSums] = {};
    for (int64_t k = 0; k < kQ4Cols; k += kPackSums) {
      for (int64_t i = 0; i < kPackSums; ++i) {
        const float weighted = importance[k + i] * values[k + i];
        product[i] += weighted * weights[k + i];
        square[i] += weighted * values[k + i];
      }
    }
    for (int i = 0; i < kPackSums; ++i) {
      products += product[i];
      squares += square[i];
    }
  }
  float best_scale() const { return squares > 0 ? products / squares : 0; }
};

// The code of each value, by its stored byte.
struct Q4Codes {
  uint8_t of[256] = {};
  constexpr Q4Codes() {
    for (int code = 0; code < 16; ++code) of[kQ4Values[code]] = static_cast<uint8_t>(code);
  }
};
constexpr Q4Codes kQ4Codes;

inline int code_of(float value) { return kQ4Codes.of[static_cast<int>(value) + 128]; }

// What the codes at a scale lose: the sum of importance * (weight - scale * value)^2.
float loss(const float* weights, const float* importance, const Q4Group& group, float scale) {
  float sums[kPackSums] = {};
  for (int64_t k = 0; k < kQ4Cols; k += kPackSums) {
    for (int64_t i = 0; i < kPackSums; ++i) {
      const float error = weights[k + i] - scale * group.values[k + i];
      sums[i] += importance[k + i] * error * error;
    }
  }
  float total = 0;
  for (float sum : sums) total += sum;
  return total;
}

// A group as the search for its scale sees it.
struct Q4Sample {
  float weights[kQ4Cols];     // divided by the largest
  float importance[kQ4Cols];  // what an error of each counts: its own size, for large weights stand
                              // where activations matter, and the root of the mean square

  Q4Sample(const float* source, float largest) {
    const float unit = largest >= FLT_MIN ? 1 / largest : 0;
    float squares = 0;
    for (int64_t k = 0; k < kQ4Cols; ++k) {
      weights[k] = source[k] * unit;
      squares += weights[k] * weights[k];
    }
    const float mean = sqrtf(squares / kQ4Cols);
    for (int64_t k = 0; k < kQ4Cols; ++k) importance[k] = fabsf(weights[k]) + mean;
  }
};

// Tries scales at which the weight of the largest size, 1 or -1 here, becomes each
// of these values, and takes the least-squares scale for the codes of the best.
float q4_scale(const Q4Sample& sample) {
  constexpr float kReaches[] = {-127, 112, -120, -134, -142, 104, 120, 128};
  float extreme = 0;
  for (int64_t k = 0; k < kQ4Cols; ++k) {
    if (fabsf(sample.weights[k]) > fabsf(extreme)) extreme = sample.weights[k];
  }
  float best = 0;
  float least = __builtin_inff();
  for (float reach : kReaches) {
    const Q4Group group(sample.weights, sample.importance, Scale(extreme / reach));
    const float scale = group.best_scale();
    const float lost = loss(sample.weights, sample.importance, group, scale);
    if (lost < least) {
      least = lost;
      best = scale;
    }
  }
  return best;
}

void pack_q4(const float* weights,              // (kQ4Cols,)
             uint16_t* scale, uint8_t* octets)  // of the row
{
  const float largest = largest_of(weights, kQ4Cols);
  const Q4Sample sample(weights, largest);
  const Scale chosen(is_nan(largest) ? kNaN : q4_scale(sample) * largest);
  const Q4Group group(weights, sample.importance, chosen);
  *scale = chosen.bits;
  for (int64_t k = 0; k < kQ4Cols; k += 8) {
    for (int64_t i = 0; i < 4; ++i) {
      octets[k / 8 * kQuadBytes + i] = static_cast<uint8_t>(code_of(group.values[k + i]) |
                                                            code_of(group.values[k + 4 + i]) << 4);
    }
  }
}

// A row of weights into row `row` of a panel.
void pack_row(DType packed, const float* weights, int64_t cols, int64_t row, void* panel) {
  const int64_t n_cols = group_cols(packed);
  auto* group = static_cast<char*>(panel);
  for (int64_t first = 0; first < cols; first += n_cols, group += group_bytes(packed)) {
    float some[kQ8Cols] = {};
    const int64_t n = cols - first < n_cols ? cols - first : n_cols;
    memcpy(some, weights + first, static_cast<size_t>(n) * sizeof(float));
    auto* scale = reinterpret_cast<uint16_t*>(group) + row;
    auto* bytes = reinterpret_cast<uint8_t*>(group) + kScaleBytes + 4 * row;
    packed == DType::kQ8 ? pack_q8(some, scale, bytes) : pack_q4(some, scale, bytes);
  }
}

}  // namespace
}  // namespace influence
