// y = x @ W^T for bfloat16 weights in twelve bits (packed.h): the very bits of the
// product with stored weights, because its tiles do the sums. Include a simd_*.h and
// vector_matmul.h first.
//
// Bytes moved: three quarters of the stored product's. Bound: with few tokens still
// the memory; unpacking takes some five cycles for 64 weights with 512-bit vectors,
// which come from memory in 16.
//
// A row of a block becomes bfloat16 by two table look-ups (the exponent's bits in the
// high and the low byte), two selections and two interleavings of bytes.
//
// As many tokens as one tile holds meet a block of a panel as soon as it is unpacked,
// in L1. More of them meet a panel, many of them kUnpackedRows rows, unpacked whole.
#pragma once

#include "bf12_panel.h"

namespace influence {
namespace {

inline void unpack_row(const uint8_t* row, const BF12Codes& codes, BF16* out) {  // (kBF12Cols,)
  const Bytes sign = broadcast_byte(0x80);
  const Bytes high_bits = load_table(codes.high);
  const Bytes low_bits = load_table(codes.low);
  UNROLL
  for (int v = 0; v < kBF12Cols / kVectorBytes; ++v) {
    const Bytes rest = load_bytes(row + v * kVectorBytes);
    const Bytes code = load_codes(row + kBF12Cols, v);
    const Bytes high = select_bits(sign, rest, look_up(high_bits, code));
    const Bytes low = select_bits(sign, look_up(low_bits, code), rest);
    BF16* first = out + v * kVectorBytes / 2;
    store_pairs(low, high, first, first + kBF12Cols / 2);
  }
}

// Memory that is read from its first byte to its last, fetched this far ahead.
inline constexpr int64_t kFetchAhead = 6144;

inline void fetch_ahead(const void* at, int64_t n_bytes, const char* end) {
  const char* first = static_cast<const char*>(at) + kFetchAhead;
  for (int64_t i = 0; i < n_bytes && first + i < end; i += kAlignment)
    __builtin_prefetch(first + i);
}

void unpack_panel(const char* data, int64_t cols, BF16* out, int64_t stride, const char* end) {
  const BF12Panel panel(data, cols);
  BF12Patches patches(panel, cols);
  for (int64_t k = 0; k < cols; k += kBF12Cols) {
    fetch_ahead(panel.block(k, 0), kBF12Rows * kBF12Bytes, end);
    for (int64_t r = 0; r < kBF12Rows; ++r) {
      unpack_row(panel.block(k, r), panel.codes(r), out + r * stride + k);
    }
    patches.apply(k, 0, kBF12Rows, out + k, stride);
  }
}

// All tokens and kRows rows of a panel, from its row `row` on; p.w is not used.
template <class Format, int kTokens, int kRows>
void multiply_while_unpacking(const Product<Format>& p, const char* data, int64_t row,
                              const char* end) {
  const BF12Panel panel(data, p.cols);
  BF12Patches patches(panel, p.cols);
  alignas(kAlignment) BF16 weights[kRows * kBF12Cols];
  Product<Format> block = p;
  block.w = weights;
  block.w_stride = kBF12Cols;
  block.n_rows = kRows;
  Sums<kTokens, kRows> sum;
  clear<kTokens, kRows>(sum);
  for (int64_t k = 0; k < p.cols; k += kBF12Cols) {
    fetch_ahead(panel.block(k, row), kRows * kBF12Bytes, end);
    for (int64_t r = 0; r < kRows; ++r) {
      unpack_row(panel.block(k, row + r), panel.codes(row + r), weights + r * kBF12Cols);
    }
    patches.apply(k, row, kRows, weights, kBF12Cols);
    block.x = p.x + k;
    const int64_t left = p.cols - k;
    accumulate<Format, kTokens, kRows>(block, 0, 0, 0, left < kBF12Cols ? left : kBF12Cols, sum);
  }
  finish<Format, kTokens, kRows>(p, 0, row, sum);
}

template <class Format, int kRows, int kTokens = kAccumulators / kRows>
void multiply_while_unpacking_of(const Product<Format>& p, const char* panel, const char* end) {
  if (p.n_tokens == kTokens) {
    for (int64_t row = 0; row < kBF12Rows; row += kRows) {
      multiply_while_unpacking<Format, kTokens, kRows>(p, panel, row, end);
    }
  } else if constexpr (kTokens > 1) {
    multiply_while_unpacking_of<Format, kRows, kTokens - 1>(p, panel, end);
  }
}

// A panel that was unpacked, four rows after the other; meanwhile the tiles fetch the
// next panel, which is as long as six rows of bfloat16.
template <class Format>
void multiply_unpacked(const Product<Format>& p, const char* next, const char* end) {
  constexpr int64_t kNextRows = kBF12Rows * kBF12Bytes / (2 * kBF12Cols);
  const TokenTiles tiles(p.n_tokens, kAccumulators / 4);
  const int64_t n = kBF12Rows / 4 * tiles.n_tiles;
  const int64_t stride = 2 * p.cols;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = next == end ? 0 : i * kNextRows / n;
    const int64_t last = next == end ? 0 : (i + 1) * kNextRows / n;
    const Ahead ahead = {next + first * stride, stride, last - first};
    const int64_t tile = i % tiles.n_tiles;
    multiply_tile_of<Format, 4>(tiles.size(tile), p, tiles.begin(tile), i / tiles.n_tiles * 4,
                                ahead);
  }
}

template <class Format>
void multiply_bf12_panel(const Product<Format>& p, const char* panel, const char* end,
                         BF16* scratch) {
  if (p.n_tokens * 8 <= kAccumulators) return multiply_while_unpacking_of<Format, 8>(p, panel, end);
  if (p.n_tokens * 4 <= kAccumulators) return multiply_while_unpacking_of<Format, 4>(p, panel, end);
  unpack_panel(panel, p.cols, scratch, p.w_stride, end);
  multiply_unpacked(p, panel + panel_bytes(DType::kBF12, p.cols), end);
}

template <class Format>
void multiply_bf12(const void* x, int64_t n_tokens, const void* w, int64_t, int64_t n_rows,
                   int64_t cols, float* out, int64_t out_stride, void* scratch) {
  const int64_t bytes = panel_bytes(DType::kBF12, cols);
  const int64_t stride = unpacked_stride(cols);
  const char* panel = static_cast<const char*>(w);
  const char* end = panel + packed_bytes(DType::kBF12, n_rows, cols);
  auto* rows = static_cast<BF16*>(scratch);
  if (n_tokens >= kManyTokens) {
    for (int64_t row = 0; row < n_rows; row += kUnpackedRows) {
      const int64_t n = n_rows - row < kUnpackedRows ? n_rows - row : kUnpackedRows;
      for (int64_t r = 0; r < n; r += kBF12Rows, panel += bytes) {
        unpack_panel(panel, cols, rows + r * stride, stride, end);
      }
      multiply<Format>(x, n_tokens, rows, stride, n, cols, out + row, out_stride, nullptr);
    }
    return;
  }
  Product<Format> p = {static_cast<const typename Format::Activation*>(x),
                       prepared_cols<Format>(cols),
                       n_tokens,
                       rows,
                       stride,
                       kBF12Rows,
                       cols,
                       out,
                       out_stride};
  for (int64_t row = 0; row < n_rows; row += kBF12Rows, panel += bytes, p.out += kBF12Rows) {
    p.n_rows = n_rows - row < kBF12Rows ? n_rows - row : kBF12Rows;
    multiply_bf12_panel(p, panel, end, rows);
  }
}

template <class Format>
constexpr MatmulKernel bf12_kernel() {
  return {prepared_bytes<Format>, kUnpackedRows,         prepare<Format>,
          unpacked_bytes,         multiply_bf12<Format>, kBF12Rows};
}

}  // namespace
}  // namespace influence
