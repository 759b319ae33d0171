// Activations for packed weights: each block of columns as whole numbers from -127 to
// 127 with one scale, so that products and their sums are exact integers. A block is a
// group of q8; of q4 it is 256 columns, eight groups, whose scales are whole numbers too.
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
//     values  (n_groups * group_cols, rounded up to 64) int8, zeros beyond the last column
//     scales  (n_blocks,) float32; NaN for a block that holds NaN or infinity
//     sums    (n_groups, rounded up to 2) int16, of the groups' values
template <DType kPacked>
struct PreparedRow {
  static constexpr int64_t kCols = group_cols(kPacked);
  static constexpr int64_t kBlockCols = block_cols(kPacked);
  static constexpr int64_t kBlockGroups = kBlockCols / kCols;

  static int64_t n_groups(int64_t cols) { return ceil_div(cols, kCols); }
  static int64_t n_values(int64_t cols) { return round_up(n_groups(cols) * kCols, int64_t{64}); }
  static int64_t n_blocks(int64_t cols) { return ceil_div(cols, kBlockCols); }
  static int64_t n_sums(int64_t cols) { return round_up(n_groups(cols), int64_t{2}); }
  static int64_t bytes(int64_t cols) {
    return round_up(n_values(cols) + 4 * n_blocks(cols) + 2 * n_sums(cols),
                    static_cast<int64_t>(kAlignment));
  }

  PreparedRow() = default;
  PreparedRow(const void* rows, int64_t token, int64_t cols)
      : values(static_cast<const int8_t*>(rows) + token * bytes(cols)),
        scales(reinterpret_cast<const float*>(values + n_values(cols))),
        sums(reinterpret_cast<const int16_t*>(scales + n_blocks(cols))) {}

  const int8_t* values = nullptr;
  const float* scales = nullptr;
  const int16_t* sums = nullptr;
};

// The nearest whole number, ties to even; |x| < 2^22. The constant is 1.5 * 2^23.
inline float rounded(float x) {
  constexpr float kRounder = 12582912.0f;
  return (x + kRounder) - kRounder;
}

inline constexpr uint32_t kInfinityBits = 0x7f800000;

template <DType kPacked>
void prepare_block(const float* x,  // (kBlockCols,)
                   int64_t n_groups, int8_t* values, float* scale, int16_t* sums) {
  using Row = PreparedRow<kPacked>;
  uint32_t largest_bits = 0;  // sizes are ordered as their bits are, NaN and infinity last
  for (int64_t k = 0; k < Row::kBlockCols; ++k) {
    const float size = fabsf(x[k]);
    uint32_t bits;
    memcpy(&bits, &size, sizeof(bits));
    largest_bits = bits > largest_bits ? bits : largest_bits;
  }
  float largest;
  memcpy(&largest, &largest_bits, sizeof(largest));
  const bool is_finite = largest_bits < kInfinityBits;
  const float factor = largest > 0 && is_finite ? 127.0f / largest : 0.0f;
  for (int64_t group = 0; group < n_groups; ++group) {
    int32_t sum = 0;
    for (int64_t k = group * Row::kCols; k < (group + 1) * Row::kCols; ++k) {
      float value = factor == 0 ? 0.0f : x[k] * factor;
      auto whole = static_cast<int32_t>(rounded(value));
      values[k] = static_cast<int8_t>(whole);
      sum += whole;
    }
    sums[group] = static_cast<int16_t>(sum);
  }
  *scale = is_finite ? largest / 127.0f : __builtin_nanf("");
}

template <DType kPacked>
int64_t packed_prepared_bytes(int64_t cols) {
  return PreparedRow<kPacked>::bytes(cols);
}

template <DType kPacked>
void packed_prepare(const float* x, int64_t x_stride, int64_t n_tokens, int64_t cols, void* out) {
  using Row = PreparedRow<kPacked>;
  const int64_t n_groups = Row::n_groups(cols);
  for (int64_t token = 0; token < n_tokens; ++token, x += x_stride) {
    const Row row(out, token, cols);
    auto* values = const_cast<int8_t*>(row.values);
    auto* sums = const_cast<int16_t*>(row.sums);
    for (int64_t block = 0; block < Row::n_blocks(cols); ++block) {
      const int64_t first = block * Row::kBlockCols;
      const int64_t n = cols - first < Row::kBlockCols ? cols - first : Row::kBlockCols;
      float some[Row::kBlockCols] = {};
      memcpy(some, x + first, static_cast<size_t>(n) * sizeof(float));
      prepare_block<kPacked>(some, ceil_div(n, Row::kCols), values + first,
                             const_cast<float*>(row.scales) + block,
                             sums + block * Row::kBlockGroups);
    }
    for (int64_t k = n_groups * Row::kCols; k < Row::n_values(cols); ++k) values[k] = 0;
    for (int64_t group = n_groups; group < Row::n_sums(cols); ++group) sums[group] = 0;
  }
}

}  // namespace
}  // namespace influence
