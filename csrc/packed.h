// Element types of weights, and how those of few bits are packed. Functions are
// static: see kernels/simd_avx512.h.
//
// A packed matrix is panels of rows, one after another; the last is filled up with
// zeros. How many rows, and how they lie, depends on the format.
//
// q8 and q4: a panel is 64 rows in groups of 64 (q8) or 32 (q4) columns; the last
// group is filled up too. A group of q8:
//
//     scales   64 bfloat16, one for each row
//     quads    for each 4 columns 256 bytes, 4 for each row: weight / scale + 128
//
// A panel of q4 begins with 64 bytes, one for each row: the exponent of its base,
// a power of two, as in a float32 (0: the base is 0). A group:
//
//     scales   64 uint8, one for each row
//     zeros    64 int8, one for each row
//     quads    for each 8 columns 256 bytes, 4 for each row: the codes of
//              columns 0 to 3 in the low halves, those of 4 to 7 in the high ones;
//              weight / (base * scale) + zero + 128 is kQ4Values[code]
//
// So a vector of 4-byte lanes holds 4 columns of as many rows: each lane sums the
// outputs of one row, a scale is a vector like any other, and a product of one
// row reads the panel from its first byte to its last.
//
// 8.25 bits a weight for q8; 4.5 for q4, and 8 for each row. Scales and zeros of q4
// are whole numbers, so that 256 columns' products with activations of a byte add up
// to one of 32 bits: tiles may take them 64 columns at a time.
//
// bf12: bfloat16 in twelve bits, and nothing is lost. The weights of a row use few
// exponents: 15 neighbouring ones cover all but about two of ten thousand. A panel
// is 8 rows:
//
//     bases       8 bytes, one for each row
//     exceptions  (exception_room(cols),) BF12Exception by column: weights whose
//                 exponent has no code; one with the column kNoColumn ends them
//     blocks      from the next multiple of 64 bytes on, for each 64 columns (the
//                 last filled up with zeros) and in them for each row:
//                     64 bytes  sign and mantissa: a weight's bits without the exponent
//                     32 bytes  codes: of bytes 0 to 31 in the low halves, of 32 to 63
//                               in the high ones
//
// The code c > 0 is the exponent base + c; 0 is the exponent 0, zeros and subnormal
// numbers. Byte 16 i + j of a block is its column 8 i + j for j < 8, and column
// 32 + 8 i + j - 8 above, so that vectors of bytes, interleaved with others in
// each 16 of them, are weights in order.
#pragma once

#include "base.h"

namespace influence {

enum class DType : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kBF12 };
inline constexpr int kDTypeCount = 6;

static constexpr bool is_packed(DType dtype) { return dtype >= DType::kQ8; }

// Of an element that is not packed.
static constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

inline constexpr int64_t kPanelRows = 64;               // of q8 and q4
inline constexpr int64_t kQuadBytes = 4 * kPanelRows;   // 4 columns of a panel, a byte each
inline constexpr int64_t kScaleBytes = 2 * kPanelRows;  // q4: half of them zeros
inline constexpr int64_t kQ4HeadBytes = kPanelRows;
inline constexpr int kMantissaBits = 23;  // below the exponent of a float32

static constexpr int64_t group_cols(DType packed) { return packed == DType::kQ8 ? 64 : 32; }

// Columns of activations that share a scale.
static constexpr int64_t block_cols(DType packed) { return packed == DType::kQ8 ? 64 : 256; }

static constexpr int64_t group_bytes(DType packed) {
  return kScaleBytes + (packed == DType::kQ8 ? 16 : 4) * kQuadBytes;
}

// A weight of a bf12 panel as it is stored elsewhere.
struct BF12Exception {
  uint32_t col;
  uint16_t row;  // in the panel
  uint16_t bits;
};
inline constexpr uint32_t kNoColumn = 0xffffffff;

inline constexpr int64_t kBF12Rows = 8;
inline constexpr int64_t kBF12Cols = 64;                  // of a block
inline constexpr int64_t kBF12Bytes = 3 * kBF12Cols / 2;  // of a row in a block
inline constexpr int kBF12Codes = 16;

// Several times what weights with heavy tails need (Student's t of 3 degrees: 6 of
// ten thousand, 20 at most in a panel of 2048 columns), with the one that ends them.
static constexpr int64_t exception_room(int64_t cols) { return kBF12Rows * cols / 1024 + 16; }

static constexpr int64_t bf12_head_bytes(int64_t cols) {
  const auto size = static_cast<int64_t>(sizeof(BF12Exception));
  return round_up(kBF12Rows + exception_room(cols) * size, static_cast<int64_t>(kAlignment));
}

static constexpr int64_t panel_rows(DType packed) {
  return packed == DType::kBF12 ? kBF12Rows : kPanelRows;
}

static constexpr int64_t panel_bytes(DType packed, int64_t cols) {
  return packed == DType::kBF12
             ? bf12_head_bytes(cols) + ceil_div(cols, kBF12Cols) * kBF12Rows * kBF12Bytes
             : (packed == DType::kQ4 ? kQ4HeadBytes : 0) +
                   ceil_div(cols, group_cols(packed)) * group_bytes(packed);
}

static constexpr int64_t packed_bytes(DType packed, int64_t rows, int64_t cols) {
  return ceil_div(rows, panel_rows(packed)) * panel_bytes(packed, cols);
}

// What a q4 code stands for, 128 added; the values lie where normally distributed
// weights do, 32 of them at their best scale and zero (tools/fit_q4_table.py).
static constexpr uint8_t kQ4Values[16] = {1,   28,  48,  66,  81,  95,  109, 122,
                                          134, 147, 161, 175, 190, 208, 228, 255};

}  // namespace influence
