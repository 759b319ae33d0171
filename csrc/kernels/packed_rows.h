// Activations for packed weights: each group of columns as whole numbers from
// -127 to 127 with one scale, so that products and their sums are exact integers.
// The same numbers in every table: a product, a maximum and a rounding to the
// nearest even number, which vectors do as scalars do. Bound by the cache.
// Anonymous: see simd_avx512.h.
#pragma once

#include <math.h>
#include <string.h>

#include "kernels.h"

namespace influence {
namespace {

// One prepared row:
//
//     values  (n_groups * group_cols,) int8, zeros beyond the last column
//     scales  (n_groups,) float32; NaN for a group that holds NaN or infinity
//     sums    (n_groups,) int32, of the group's values
template <DType kPacked>
struct PreparedRow {
  static constexpr int64_t kCols = group_cols(kPacked);

  static int64_t n_groups(int64_t cols) { return ceil_div(cols, kCols); }
  static int64_t bytes(int64_t cols) {
    return round_up(n_groups(cols) * (kCols + 8), static_cast<int64_t>(kAlignment));
  }

  PreparedRow() = default;
  PreparedRow(const void* rows, int64_t token, int64_t cols)
      : values(static_cast<const int8_t*>(rows) + token * bytes(cols)),
        scales(reinterpret_cast<const float*>(values + n_groups(cols) * kCols)),
        sums(reinterpret_cast<const int32_t*>(scales + n_groups(cols))) {}

  const int8_t* values = nullptr;
  const float* scales = nullptr;
  const int32_t* sums = nullptr;
};

// The nearest whole number, ties to even; |x| < 2^22. The constant is 1.5 * 2^23.
inline float rounded(float x) {
  constexpr float kRounder = 12582912.0f;
  return (x + kRounder) - kRounder;
}

template <int64_t kCols>
void prepare_group(const float* x,  // (kCols,)
                   int8_t* values, float* scale, int32_t* sum) {
  float largest = 0;
  float total = 0;  // NaN where x holds NaN or infinity
  for (int64_t k = 0; k < kCols; ++k) {
    float size = fabsf(x[k]);
    largest = size > largest ? size : largest;
    total += x[k] * 0.0f;
  }
  const float factor = largest > 0 && total == 0 ? 127.0f / largest : 0.0f;
  *sum = 0;
  for (int64_t k = 0; k < kCols; ++k) {
    float value = factor == 0 ? 0.0f : x[k] * factor;
    auto whole = static_cast<int32_t>(rounded(value));
    values[k] = static_cast<int8_t>(whole);
    *sum += whole;
  }
  *scale = largest / 127.0f + total;
}

template <DType kPacked>
int64_t packed_prepared_bytes(int64_t cols) {
  return PreparedRow<kPacked>::bytes(cols);
}

template <DType kPacked>
void packed_prepare(const float* x, int64_t x_stride, int64_t n_tokens, int64_t cols, void* out) {
  using Row = PreparedRow<kPacked>;
  for (int64_t token = 0; token < n_tokens; ++token, x += x_stride) {
    Row row(out, token, cols);
    for (int64_t group = 0; group < Row::n_groups(cols); ++group) {
      const int64_t first = group * Row::kCols;
      const int64_t n = cols - first < Row::kCols ? cols - first : Row::kCols;
      float some[Row::kCols] = {};
      memcpy(some, x + first, static_cast<size_t>(n) * sizeof(float));
      prepare_group<Row::kCols>(some, const_cast<int8_t*>(row.values) + first,
                                const_cast<float*>(row.scales) + group,
                                const_cast<int32_t*>(row.sums) + group);
    }
  }
}

}  // namespace
}  // namespace influence
