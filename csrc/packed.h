// Element types of weights, and how those of few bits are packed. Functions are
// static: see kernels/simd_avx512.h.
//
// A packed matrix is panels of 64 rows, one after another; the last is filled up
// with zeros. A panel is groups of 32 (q4) or 64 (q8) columns; the last is filled
// up too. A group:
//
//     scales   64 bfloat16, one for each row
//     quads    q8: for each 4 columns 256 bytes, 4 for each row: weight / scale + 128
//              q4: for each 8 columns 256 bytes, 4 for each row: the codes of
//              columns 0 to 3 in the low halves, those of 4 to 7 in the high ones;
//              weight / scale + 128 is kQ4Values[code]
//
// So a vector of 4-byte lanes holds 4 columns of as many rows: each lane sums the
// outputs of one row, a scale is a vector like any other, and a product of one
// row reads the panel from its first byte to its last.
//
// 8.25 bits a weight for q8, 4.5 for q4.
#pragma once

#include "base.h"

namespace influence {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ8, kQ4 };
inline constexpr int kDTypeCount = 5;

static constexpr bool is_packed(DType dtype) { return dtype == DType::kQ8 || dtype == DType::kQ4; }

// Of an element that is not packed.
static constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

inline constexpr int64_t kPanelRows = 64;
inline constexpr int64_t kQuadBytes = 4 * kPanelRows;  // 4 columns of a panel, a byte each
inline constexpr int64_t kScaleBytes = 2 * kPanelRows;

static constexpr int64_t group_cols(DType packed) { return packed == DType::kQ8 ? 64 : 32; }

static constexpr int64_t group_bytes(DType packed) {
  return kScaleBytes + (packed == DType::kQ8 ? 16 : 4) * kQuadBytes;
}

static constexpr int64_t panel_bytes(DType packed, int64_t cols) {
  return ceil_div(cols, group_cols(packed)) * group_bytes(packed);
}

static constexpr int64_t packed_bytes(DType packed, int64_t rows, int64_t cols) {
  return ceil_div(rows, kPanelRows) * panel_bytes(packed, cols);
}

// What a q4 code stands for, 128 added; the values lie where normally distributed
// weights do whose largest in 32 is -127, one of them at 0 (tools/fit_q4_table.py).
static constexpr uint8_t kQ4Values[16] = {1,   26,  45,  62,  77,  90,  103, 116,
                                          128, 141, 154, 168, 182, 199, 217, 240};

}  // namespace influence
