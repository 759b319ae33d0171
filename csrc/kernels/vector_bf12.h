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

// The next panel, fetched while a panel is used: as long as six rows of bfloat16, of
// which each block fetches two lines. Six places at once, for the hardware reads on
// by itself in each; one place after the other takes a third longer.
inline constexpr int64_t kNextRows = kBF12Rows * kBF12Bytes / (2 * kBF12Cols);

// The last panel fetches itself, which is there already.
inline Ahead next_panel(const char* panel, const char* end, int64_t cols) {
  const char* next = panel + panel_bytes(DType::kBF12, cols);
  return {next < end ? next : panel, 2 * cols, kNextRows};
}

inline Ahead share_of(const Ahead& ahead, int64_t first, int64_t last) {
  return {ahead.rows + first * ahead.stride_bytes, ahead.stride_bytes, last - first};
}

void unpack_panel(const char* data, int64_t cols, BF16* out, int64_t stride, const Ahead& ahead) {
  const BF12Panel panel(data, cols);
  BF12Patches patches(panel, cols);
  for (int64_t k = 0; k < cols; k += kBF12Cols) {
    ahead.fetch(2 * k, 2 * (k + kBF12Cols));
    for (int64_t r = 0; r < kBF12Rows; ++r) {
      unpack_row(panel.block(k, r), panel.codes(r), out + r * stride + k);
    }
    patches.apply(k, 0, kBF12Rows, out + k, stride);
  }
}

// All tokens and kRows rows of a panel, from its row `row` on; p.w is not used.
template <class Format, int kTokens, int kRows>
void multiply_while_unpacking(const Product<Format>& p, const char* data, int64_t row,
                              const Ahead& ahead) {
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
    ahead.fetch(2 * k, 2 * (k + kBF12Cols));
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
void multiply_while_unpacking_of(const Product<Format>& p, const char* panel, const Ahead& next) {
  if (p.n_tokens == kTokens) {
    for (int64_t row = 0; row < kBF12Rows; row += kRows) {
      const int64_t first = row * kNextRows / kBF12Rows;
      const Ahead ahead = share_of(next, first, first + kRows * kNextRows / kBF12Rows);
      multiply_while_unpacking<Format, kTokens, kRows>(p, panel, row, ahead);
    }
  } else if constexpr (kTokens > 1) {
    multiply_while_unpacking_of<Format, kRows, kTokens - 1>(p, panel, next);
  }
}

// A panel that was unpacked to p.w, four rows after the other; the tiles share the
// fetching of the next one.
template <class Format>
void multiply_unpacked(const Product<Format>& p, const Ahead& next) {
  const TokenTiles tiles(p.n_tokens, kAccumulators / 4);
  const int64_t n = kBF12Rows / 4 * tiles.n_tiles;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t tile = i % tiles.n_tiles;
    multiply_tile_of<Format, 4>(tiles.size(tile), p, tiles.begin(tile), i / tiles.n_tiles * 4,
                                share_of(next, i * kNextRows / n, (i + 1) * kNextRows / n));
  }
}

template <class Format>
void multiply_bf12_panel(const Product<Format>& p, const char* panel, const Ahead& next,
                         BF16* scratch) {
  if (p.n_tokens * 8 <= kAccumulators) {
    multiply_while_unpacking_of<Format, 8>(p, panel, next);
  } else if (p.n_tokens * 4 <= kAccumulators) {
    multiply_while_unpacking_of<Format, 4>(p, panel, next);
  } else {
    unpack_panel(panel, p.cols, scratch, p.w_stride, {});
    multiply_unpacked(p, next);
  }
}

using Multiply = decltype(MatmulKernel::multiply);

// Rows are unpacked in front of kMultiply, the table's product with stored weights,
// whose own scratch lies behind them.
template <Multiply kMultiply>
void multiply_unpacked_by(const void* x, int64_t n_tokens, const void* w, int64_t, int64_t n_rows,
                          int64_t cols, float* out, int64_t out_stride, void* scratch) {
  const int64_t bytes = panel_bytes(DType::kBF12, cols);
  const int64_t stride = unpacked_stride(cols);
  const char* panel = static_cast<const char*>(w);
  const char* end = panel + packed_bytes(DType::kBF12, n_rows, cols);
  auto* rows = static_cast<BF16*>(scratch);
  for (int64_t row = 0; row < n_rows; row += kUnpackedRows) {
    const int64_t n = n_rows - row < kUnpackedRows ? n_rows - row : kUnpackedRows;
    for (int64_t r = 0; r < n; r += kBF12Rows, panel += bytes) {
      unpack_panel(panel, cols, rows + r * stride, stride, next_panel(panel, end, cols));
    }
    kMultiply(x, n_tokens, rows, stride, n, cols, out + row, out_stride,
              static_cast<char*>(scratch) + unpacked_bytes(cols));
  }
}

template <class Format>
void multiply_bf12(const void* x, int64_t n_tokens, const void* w, int64_t w_stride, int64_t n_rows,
                   int64_t cols, float* out, int64_t out_stride, void* scratch) {
  if (n_tokens >= kManyTokens) {
    return multiply_unpacked_by<multiply<Format>>(x, n_tokens, w, w_stride, n_rows, cols, out,
                                                  out_stride, scratch);
  }
  const int64_t bytes = panel_bytes(DType::kBF12, cols);
  const int64_t stride = unpacked_stride(cols);
  const char* panel = static_cast<const char*>(w);
  const char* end = panel + packed_bytes(DType::kBF12, n_rows, cols);
  auto* rows = static_cast<BF16*>(scratch);
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
    multiply_bf12_panel(p, panel, next_panel(panel, end, cols), rows);
  }
}

template <class Format>
constexpr MatmulKernel bf12_kernel() {
  return {prepared_bytes<Format>, kChunkRows, prepare<Format>, unpacked_bytes,
          multiply_bf12<Format>,  kBF12Rows};
}

}  // namespace
}  // namespace influence
