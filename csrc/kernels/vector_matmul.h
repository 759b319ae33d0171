// y = x @ W^T for weights exactly as they lie in the file: rows, contiguous
// along K. Include a simd_*.h first.
//
// Bytes moved: all of W once for each call; the activations stay in cache.
// Bound: with few tokens the memory that W streams from; with many the FMA
// units.
//
// Tile: lanes run along K. A tile is kTokens x kRows outputs, each with one
// vector accumulator; a step loads kRows vectors of weights and kTokens of
// activations for kRows * kTokens multiply-adds. kAccumulators (24 of 32
// registers, 12 of 16) is 6 x 4 (3 x 4) for many tokens; fewer tokens take more
// rows, so that one token still has eight sums in flight to hide the latency of
// an FMA and eight streams to keep the memory busy. An output's accumulator
// sees k = 0, 1, 2, ... whatever the tile, and four_sums adds its lanes in one
// fixed order: the bits do not depend on the shape.
#pragma once

#include "unroll.h"

namespace influence {
namespace {

// A Format says how one dtype of weights meets the activations:
//   Weight, Activation    elements as they lie in memory
//   Operand               a register of either
//   kStep                 elements of a row in one step, eaten in kPhases loads
//   load_weights, load_activations, multiply_add

// Float activations; the weights become floats as they are loaded.
template <class WeightElement>
struct FloatFormat {
  using Weight = WeightElement;
  using Activation = float;
  using Operand = Vector;
  static constexpr int kStep = kLanes;
  static constexpr int kPhases = 1;

  static Operand load_weights(const Weight* w, int) { return load(w); }
  static Operand load_some_weights(const Weight* w, int64_t n, int) { return load(w, n); }
  static Operand load_activations(const Activation* x, int) { return load(x); }
  static Vector accumulate(Operand x, Operand w, Vector sum) { return multiply_add(x, w, sum); }

  static void prepare_step(const float* x, int64_t n, Activation* out) { store(out, load(x, n)); }
};

// BF16 weights in float arithmetic. Two phases a step, the even and the odd
// elements, because a shift and a mask make floats of them without a shuffle;
// the activations are prepared in the same order.
struct SplitBF16Format {
  using Weight = BF16;
  using Activation = float;
  using Operand = Vector;
  static constexpr int kStep = 2 * kLanes;
  static constexpr int kPhases = 2;

  static Operand load_weights(const Weight* w, int phase) {
    return phase == 0 ? load_even(w) : load_odd(w);
  }
  static Operand load_some_weights(const Weight* w, int64_t n, int phase) {
    Weight some[kStep] = {};
    for (int64_t i = 0; i < n; ++i) some[i] = w[i];
    return load_weights(some, phase);
  }
  static Operand load_activations(const Activation* x, int phase) {
    return load(x + phase * kLanes);
  }
  static Vector accumulate(Operand x, Operand w, Vector sum) { return multiply_add(x, w, sum); }

  static void prepare_step(const float* x, int64_t n, Activation* out) {
    for (int i = 0; i < kStep; ++i) out[i % 2 * kLanes + i / 2] = i < n ? x[i] : 0.0f;
  }
};

// Elements of a prepared row: zeros fill the last step, so that activations
// need no masks and weights beyond the row's end meet a zero.
template <class Format>
constexpr int64_t prepared_cols(int64_t cols) {
  constexpr int64_t kUnit = Format::kStep * sizeof(typename Format::Activation) < kAlignment
                                ? kAlignment / sizeof(typename Format::Activation)
                                : Format::kStep;
  return (cols + kUnit - 1) / kUnit * kUnit;
}

template <class Format>
int64_t prepared_bytes(int64_t cols) {
  return prepared_cols<Format>(cols) * static_cast<int64_t>(sizeof(typename Format::Activation));
}

template <class Format>
void prepare(const float* x, int64_t x_stride, int64_t n_tokens, int64_t cols, void* out) {
  auto* row = static_cast<typename Format::Activation*>(out);
  int64_t padded = prepared_cols<Format>(cols);
  for (int64_t t = 0; t < n_tokens; ++t, x += x_stride, row += padded) {
    for (int64_t k = 0; k < padded; k += Format::kStep) {
      int64_t left = cols - k;
      Format::prepare_step(x + k,
                           left < 0               ? 0
                           : left < Format::kStep ? left
                                                  : Format::kStep,
                           row + k);
    }
  }
}

// What a multiply is about, as its tiles need it.
template <class Format>
struct Product {
  const typename Format::Activation* x;
  int64_t x_stride;
  const typename Format::Weight* w;
  int64_t w_stride;
  int64_t n_rows;
  int64_t cols;
  float* out;
  int64_t out_stride;
};

// One step of a tile; `load` gets the weights of a row in a phase.
template <class Format, int kTokens, int kRows, class Load>
inline void accumulate_step(const typename Format::Activation* x, int64_t x_stride, Load load,
                            Vector (&sum)[kTokens][kRows]) {
  UNROLL
  for (int phase = 0; phase < Format::kPhases; ++phase) {
    typename Format::Operand w[kRows];
    UNROLL
    for (int r = 0; r < kRows; ++r) w[r] = load(r, phase);
    UNROLL
    for (int t = 0; t < kTokens; ++t) {
      typename Format::Operand a = Format::load_activations(x + t * x_stride, phase);
      UNROLL
      for (int r = 0; r < kRows; ++r) sum[t][r] = Format::accumulate(a, w[r], sum[t][r]);
    }
  }
}

inline void store_some(float* out, Four x, int64_t n) {
  float four[4];
  store(four, x);
  for (int64_t i = 0; i < n; ++i) out[i] = four[i];
}

// Outputs [token, token + kTokens) x [row, row + kRows). Rows beyond the last
// repeat it and are not stored.
template <class Format, int kTokens, int kRows>
void multiply_tile(const Product<Format>& p, int64_t token, int64_t row) {
  const typename Format::Weight* w[kRows];
  for (int r = 0; r < kRows; ++r) {
    int64_t index = row + r < p.n_rows ? row + r : p.n_rows - 1;
    w[r] = p.w + index * p.w_stride;
  }
  const typename Format::Activation* x = p.x + token * p.x_stride;

  Vector sum[kTokens][kRows];
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    UNROLL
    for (int r = 0; r < kRows; ++r) sum[t][r] = zero();
  }
  int64_t k = 0;
  for (; k + Format::kStep <= p.cols; k += Format::kStep) {
    accumulate_step<Format, kTokens, kRows>(
        x + k, p.x_stride, [&](int r, int phase) { return Format::load_weights(w[r] + k, phase); },
        sum);
  }
  if (k < p.cols) {
    accumulate_step<Format, kTokens, kRows>(
        x + k, p.x_stride,
        [&](int r, int phase) { return Format::load_some_weights(w[r] + k, p.cols - k, phase); },
        sum);
  }
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    float* out = p.out + (token + t) * p.out_stride + row;
    UNROLL
    for (int r = 0; r < kRows; r += 4) {
      Four sums = four_sums(sum[t][r], sum[t][r + 1], sum[t][r + 2], sum[t][r + 3]);
      int64_t left = p.n_rows - row - r;
      if (left >= 4) {
        store(out + r, sums);
      } else {
        store_some(out + r, sums, left);
      }
    }
  }
}

inline constexpr int kTileTokens = kAccumulators / 4;

// Rows of a tile of so many tokens: a multiple of four_sums' four, at most eight.
constexpr int tile_rows(int tokens) { return tokens * 8 <= kAccumulators ? 8 : 4; }

template <class Format, int kTokens>
void multiply_tokens(const Product<Format>& p, int64_t token) {
  constexpr int kRows = tile_rows(kTokens);
  for (int64_t row = 0; row < p.n_rows; row += kRows) {
    multiply_tile<Format, kTokens, kRows>(p, token, row);
  }
}

// Calls multiply_tokens for a number of tokens known at run time.
template <class Format, int kTokens = kTileTokens>
void multiply_tokens_of(int64_t n, const Product<Format>& p, int64_t token) {
  if (n == kTokens) return multiply_tokens<Format, kTokens>(p, token);
  if constexpr (kTokens > 1) multiply_tokens_of<Format, kTokens - 1>(n, p, token);
}

// Tokens in tiles of nearly equal size (13 are 5 + 4 + 4, not 6 + 6 + 1); a tile
// of them stays in L1 while the rows, from L2, pass by.
template <class Format>
void multiply(const void* x, int64_t n_tokens, const void* w, int64_t w_stride, int64_t n_rows,
              int64_t cols, float* out, int64_t out_stride) {
  Product<Format> product = {static_cast<const typename Format::Activation*>(x),
                             prepared_cols<Format>(cols),
                             static_cast<const typename Format::Weight*>(w),
                             w_stride,
                             n_rows,
                             cols,
                             out,
                             out_stride};
  int64_t n_tiles = (n_tokens + kTileTokens - 1) / kTileTokens;
  int64_t small = n_tokens / n_tiles;
  int64_t n_large = n_tokens % n_tiles;
  for (int64_t tile = 0, token = 0; tile < n_tiles; ++tile) {
    int64_t n = small + (tile < n_large ? 1 : 0);
    multiply_tokens_of<Format>(n, product, token);
    token += n;
  }
}

template <class Format, int64_t kRowsPerTask>
constexpr MatmulKernel matmul_kernel() {
  return {prepared_bytes<Format>, kRowsPerTask, prepare<Format>, multiply<Format>};
}

}  // namespace
}  // namespace influence
