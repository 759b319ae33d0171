// Weights into the panels of packed.h: what `pack_row` of every table does. Plain
// loops that each table compiles with its own flags, and that therefore give the
// same bytes in all of them: nothing here may be reordered. Bound by arithmetic: q8
// a few operations a weight; q4 some 45 for each of thirteen lines that it tries.
// Anonymous: see simd_avx512.h.
#pragma once

#include <float.h>
#include <math.h>
#include <string.h>

#include "packed_rows.h"

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
  const Scale chosen(largest_of(weights, kQ8Cols) / kLargest);
  *scale = chosen.bits;
  uint8_t bytes[kQ8Cols];
  for (int64_t k = 0; k < kQ8Cols; ++k) {
    float value = weights[k] * chosen.inverse;
    value = value > kLargest ? kLargest : value < -kLargest ? -kLargest : value;
    value = rounded(value);
    bytes[k] = value == value ? static_cast<uint8_t>(static_cast<int>(value) + 128) : 128;
  }
  for (int64_t k = 0; k < kQ8Cols; k += 4) memcpy(quads + k / 4 * kQuadBytes, bytes + k, 4);
}

// ---- q4: the scale and the zero that lose least ----

constexpr int64_t kQ4Cols = group_cols(DType::kQ4);
constexpr int kPackSums = 8;
constexpr float kLargestScale = 255;
constexpr float kFarthest = 254;  // a value from a zero, on both sides

// What a code stands for, and the border between it and the next one.
constexpr float value_of(int code) { return static_cast<float>(kQ4Values[code] - 128); }
constexpr float border_after(int code) { return (value_of(code) + value_of(code + 1)) / 2; }

inline float clamped(float x, float least, float most) {
  return x < least ? least : x > most ? most : x;
}

// weight = scale * (value - zero)
struct Q4Line {
  float scale = 0;  // positive, or 0
  float zero = 0;
};

// A group as the search sees it.
struct Q4Sample {
  float weights[kQ4Cols];     // divided by the largest
  float importance[kQ4Cols];  // what an error of each counts: its own size, for large weights stand
                              // where activations matter, and the root of the mean square
  float low = 0, high = 0;    // the least and the largest weight
  float total_importance = 0, mean = 0;  // of the weights, by importance

  Q4Sample(const float* source, float largest) {
    float squares = 0;
    low = high = source[0] / largest;
    for (int64_t k = 0; k < kQ4Cols; ++k) {
      weights[k] = source[k] / largest;
      squares += weights[k] * weights[k];
      low = weights[k] < low ? weights[k] : low;
      high = weights[k] > high ? weights[k] : high;
    }
    const float size = sqrtf(squares / kQ4Cols);
    float sum = 0;
    for (int64_t k = 0; k < kQ4Cols; ++k) {
      importance[k] = fabsf(weights[k]) + size;
      total_importance += importance[k];
      sum += importance[k] * weights[k];
    }
    mean = sum / total_importance;
  }
};

inline float total_of(const float (&sums)[kPackSums]) {
  float total = 0;
  for (float sum : sums) total += sum;
  return total;
}

// The values nearest to a group's weights on one line. How many borders a weight
// lies above is its code: comparisons without a branch, many weights at once.
struct Q4Group {
  float values[kQ4Cols];

  Q4Group(const float* weights, const Q4Line& line) {
    float scaled[kQ4Cols];
    const float inverse = line.scale > 0 ? 1 / line.scale : 0;
    for (int64_t k = 0; k < kQ4Cols; ++k) {
      scaled[k] = weights[k] * inverse + line.zero;
      values[k] = value_of(0);
    }
    for (int code = 0; code < 15; ++code) {
      const float border = border_after(code);
      const float step = value_of(code + 1) - value_of(code);
      for (int64_t k = 0; k < kQ4Cols; ++k) values[k] += scaled[k] > border ? step : 0.0f;
    }
  }

  // The line of least squares through these values, as steep as the largest weight, 1, needs.
  Q4Line best_line(const Q4Sample& sample) const {
    float sums[kPackSums] = {}, squares[kPackSums] = {}, products[kPackSums] = {};
    for (int64_t k = 0; k < kQ4Cols; k += kPackSums) {
      for (int64_t i = 0; i < kPackSums; ++i) {
        const float weighted = sample.importance[k + i] * values[k + i];
        sums[i] += weighted;
        squares[i] += weighted * values[k + i];
        products[i] += weighted * sample.weights[k + i];
      }
    }
    const float sum = total_of(sums);
    const float mean = sum / sample.total_importance;
    const float spread = total_of(squares) - mean * sum;
    const float common = total_of(products) - sample.mean * sum;
    const float scale = larger(1 / kFarthest, spread > 0 ? common / spread : 0);
    return {scale, mean - sample.mean / scale};
  }

  // The sum of importance * (weight - what it becomes)^2.
  float loss(const Q4Sample& sample, const Q4Line& line) const {
    float sums[kPackSums] = {};
    for (int64_t k = 0; k < kQ4Cols; k += kPackSums) {
      for (int64_t i = 0; i < kPackSums; ++i) {
        const float error = sample.weights[k + i] - line.scale * (values[k + i] - line.zero);
        sums[i] += sample.importance[k + i] * error * error;
      }
    }
    return total_of(sums);
  }
};

// The nearest line whose numbers can be stored, scales as multiples of `base`.
inline Q4Line storable(const Q4Line& line, float base, const Q4Sample& sample, float mean_value) {
  const float scale = base * rounded(clamped(line.scale / base, 1, kLargestScale));
  return {scale, rounded(clamped(mean_value - sample.mean / scale, -128, 127))};
}

// Begins with scales at which a group's ends are the outermost values, or less, and
// refines each by least squares; `base` is in units of the largest weight.
Q4Line q4_line(const Q4Sample& sample, float base) {
  constexpr float kShrinks[] = {1, 0.93f, 0.86f, 0.8f};
  Q4Line best;
  float least = __builtin_inff();
  for (float shrink : kShrinks) {
    Q4Line line;
    line.scale = larger(1 / kFarthest, shrink * (sample.high - sample.low) / kFarthest);
    line.zero = (sample.low + sample.high) / (-2 * line.scale);
    for (int round = 0; round < 2; ++round) {
      line = Q4Group(sample.weights, line).best_line(sample);
    }
    line = storable(line, base, sample, line.zero + sample.mean / line.scale);
    const float lost = Q4Group(sample.weights, line).loss(sample, line);
    if (lost < least) {
      least = lost;
      best = line;
    }
  }
  return best;
}

// The code of each value, by its stored byte.
struct Q4Codes {
  uint8_t of[256] = {};
  constexpr Q4Codes() {
    for (int code = 0; code < 16; ++code) of[kQ4Values[code]] = static_cast<uint8_t>(code);
  }
};
constexpr Q4Codes kQ4Codes;

inline int code_of(float value) { return kQ4Codes.of[static_cast<int>(value) + 128]; }

void pack_q4(const float* weights, float base,               // (kQ4Cols,)
             uint8_t* scale, int8_t* zero, uint8_t* octets)  // of the row
{
  const float largest = largest_of(weights, kQ4Cols);
  Q4Line line;
  if (base > 0 && largest >= FLT_MIN) {
    line = q4_line(Q4Sample(weights, largest), base / largest);
    line.scale *= largest;
  }
  const Q4Group group(weights, line);
  *scale = static_cast<uint8_t>(base > 0 ? rounded(line.scale / base) : 0);
  *zero = static_cast<int8_t>(line.zero);
  for (int64_t k = 0; k < kQ4Cols; k += 8) {
    for (int64_t i = 0; i < 4; ++i) {
      octets[k / 8 * kQuadBytes + i] = static_cast<uint8_t>(code_of(group.values[k + i]) |
                                                            code_of(group.values[k + 4 + i]) << 4);
    }
  }
}

// ---- rows ----

// The group of a row that begins in column `first`, filled up with zeros.
template <int64_t kCols>
struct RowGroup {
  float weights[kCols] = {};

  RowGroup(const float* row, int64_t first, int64_t cols) {
    const int64_t n = cols - first < kCols ? cols - first : kCols;
    memcpy(weights, row + first, static_cast<size_t>(n) * sizeof(float));
  }
};

void pack_q8_row(const float* weights, int64_t cols, int64_t row, char* panel) {
  for (int64_t first = 0; first < cols; first += kQ8Cols, panel += group_bytes(DType::kQ8)) {
    const RowGroup<kQ8Cols> some(weights, first, cols);
    auto* quads = reinterpret_cast<uint8_t*>(panel) + kScaleBytes + 4 * row;
    pack_q8(some.weights, reinterpret_cast<uint16_t*>(panel) + row, quads);
  }
}

// The exponent of the least base with which every group's scale is kLargestScale of it at most:
// 255, which stands for infinity, if one of the weights is no number.
uint8_t q4_exponent(const float* weights, int64_t cols) {
  float widest = 0;
  float no_number = 0;
  for (int64_t first = 0; first < cols; first += kQ4Cols) {
    const RowGroup<kQ4Cols> some(weights, first, cols);
    const float largest = largest_of(some.weights, kQ4Cols);
    float low = some.weights[0];
    float high = some.weights[0];
    for (float weight : some.weights) {
      low = weight < low ? weight : low;
      high = weight > high ? weight : high;
    }
    widest = larger(widest, larger(high / kFarthest - low / kFarthest, largest / kFarthest));
    no_number += largest * 0.0f;
  }
  if (is_nan(no_number)) return 255;
  const uint32_t bits = bits_of(widest / kLargestScale);
  const uint32_t exponent = bits >> kMantissaBits;
  if (exponent == 0) return 0;
  return static_cast<uint8_t>(exponent + ((bits & ((1u << kMantissaBits) - 1)) != 0));
}

void pack_q4_row(const float* weights, int64_t cols, int64_t row, char* panel) {
  const uint8_t exponent = q4_exponent(weights, cols);
  const uint32_t bits = exponent == 255 ? 0 : uint32_t{exponent} << kMantissaBits;
  float base;
  memcpy(&base, &bits, sizeof(base));
  panel[row] = static_cast<char>(exponent);
  panel += kQ4HeadBytes;
  for (int64_t first = 0; first < cols; first += kQ4Cols, panel += group_bytes(DType::kQ4)) {
    const RowGroup<kQ4Cols> some(weights, first, cols);
    auto* bytes = reinterpret_cast<uint8_t*>(panel);
    pack_q4(some.weights, base, bytes + row, reinterpret_cast<int8_t*>(panel) + kPanelRows + row,
            bytes + kScaleBytes + 4 * row);
  }
}

// A row of weights into row `row` of a panel.
void pack_row(DType packed, const float* weights, int64_t cols, int64_t row, void* panel) {
  auto* bytes = static_cast<char*>(panel);
  packed == DType::kQ8 ? pack_q8_row(weights, cols, row, bytes)
                       : pack_q4_row(weights, cols, row, bytes);
}

}  // namespace
}  // namespace influence
