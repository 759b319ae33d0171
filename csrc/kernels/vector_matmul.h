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

#include "kernels.h"
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
  int64_t n_tokens;
  const typename Format::Weight* w;
  int64_t w_stride;
  int64_t n_rows;
  int64_t cols;
  float* out;
  int64_t out_stride;
};

// Rows of weights that a tile brings into the cache for the tiles after it.
struct Ahead {
  const char* rows;
  int64_t stride_bytes;
  int64_t n;

  void fetch(int64_t begin, int64_t end) const {  // those bytes of each row
    for (int64_t i = 0; i < n; ++i) {
      const char* row = rows + i * stride_bytes;
      for (int64_t at = begin; at < end; at += kAlignment) __builtin_prefetch(row + at);
    }
  }
};

// The sums of a tile: outputs [token, token + kTokens) x [row, row + kRows).
template <int kTokens, int kRows>
using Sums = Vector[kTokens][kRows];

template <int kTokens, int kRows>
inline void clear(Sums<kTokens, kRows>& sum) {
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    UNROLL
    for (int r = 0; r < kRows; ++r) sum[t][r] = zero();
  }
}

template <int kTokens, int kRows>
inline void copy(const Sums<kTokens, kRows>& from, Sums<kTokens, kRows>& to) {
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    UNROLL
    for (int r = 0; r < kRows; ++r) to[t][r] = from[t][r];
  }
}

// One step of a tile; `load` gets the weights of a row in a phase.
template <class Format, int kTokens, int kRows, class Load>
inline void accumulate_step(const typename Format::Activation* x, int64_t x_stride, Load load,
                            Sums<kTokens, kRows>& sum) {
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

// Columns [begin, end) of a tile. Rows beyond the last repeat it.
template <class Format, int kTokens, int kRows>
inline void accumulate(const Product<Format>& p, int64_t token, int64_t row, int64_t begin,
                       int64_t end, Sums<kTokens, kRows>& sum) {
  const typename Format::Weight* w[kRows];
  for (int r = 0; r < kRows; ++r) {
    int64_t index = row + r < p.n_rows ? row + r : p.n_rows - 1;
    w[r] = p.w + index * p.w_stride;
  }
  const typename Format::Activation* x = p.x + token * p.x_stride;
  int64_t k = begin;
  for (; k + Format::kStep <= end; k += Format::kStep) {
    accumulate_step<Format, kTokens, kRows>(
        x + k, p.x_stride, [&](int r, int phase) { return Format::load_weights(w[r] + k, phase); },
        sum);
  }
  if (k < end) {
    accumulate_step<Format, kTokens, kRows>(
        x + k, p.x_stride,
        [&](int r, int phase) { return Format::load_some_weights(w[r] + k, end - k, phase); }, sum);
  }
}

inline void store_some(float* out, Four x, int64_t n) {
  float four[4];
  store(four, x);
  for (int64_t i = 0; i < n; ++i) out[i] = four[i];
}

// Adds the lanes of each sum and stores those of rows that exist.
template <class Format, int kTokens, int kRows>
inline void finish(const Product<Format>& p, int64_t token, int64_t row,
                   const Sums<kTokens, kRows>& sum) {
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

// Between two runs of this many bytes of its rows a tile fetches as much of the
// rows ahead: short enough for a burst of prefetches not to fill the queue.
inline constexpr int64_t kFetchBytes = 128;

// A tile from its first column to its last.
template <class Format, int kTokens, int kRows>
void multiply_tile(const Product<Format>& p, int64_t token, int64_t row, const Ahead& ahead) {
  Sums<kTokens, kRows> sum;
  clear<kTokens, kRows>(sum);
  constexpr int64_t kElementBytes = sizeof(typename Format::Weight);
  constexpr int64_t kRun = kFetchBytes / kElementBytes;
  for (int64_t k = 0; k < p.cols; k += kRun) {
    int64_t end = k + kRun < p.cols ? k + kRun : p.cols;
    ahead.fetch(k * kElementBytes, end * kElementBytes);
    accumulate<Format, kTokens, kRows>(p, token, row, k, end, sum);
  }
  finish<Format, kTokens, kRows>(p, token, row, sum);
}

template <class Format, int kRows, int kTokens = kAccumulators / kRows>
void multiply_tile_of(int64_t n_tokens, const Product<Format>& p, int64_t token, int64_t row,
                      const Ahead& ahead) {
  if (n_tokens == kTokens) return multiply_tile<Format, kTokens, kRows>(p, token, row, ahead);
  if constexpr (kTokens > 1) {
    multiply_tile_of<Format, kRows, kTokens - 1>(n_tokens, p, token, row, ahead);
  }
}

// Tokens cut into tiles of nearly equal size: 13 are 5 + 4 + 4, not 6 + 6 + 1.
struct TokenTiles {
  int64_t n_tokens;
  int64_t n_tiles;
  TokenTiles(int64_t tokens, int64_t most)
      : n_tokens(tokens), n_tiles((tokens + most - 1) / most) {}
  int64_t begin(int64_t tile) const { return tile * n_tokens / n_tiles; }
  int64_t size(int64_t tile) const { return begin(tile + 1) - begin(tile); }
};

// Few tokens: all of them meet kRows rows while these come from memory, once;
// meanwhile the tiles share the work of fetching the next kRows rows.
template <class Format, int kRows>
void multiply_few(const Product<Format>& p) {
  TokenTiles tiles(p.n_tokens, kAccumulators / kRows);
  int64_t stride_bytes = p.w_stride * static_cast<int64_t>(sizeof(typename Format::Weight));
  for (int64_t row = 0; row < p.n_rows; row += kRows) {
    const char* next = reinterpret_cast<const char*>(p.w) + (row + kRows) * stride_bytes;
    int64_t left = p.n_rows - row - kRows;
    int64_t n_next = left < 0 ? 0 : left < kRows ? left : kRows;
    for (int64_t tile = 0; tile < tiles.n_tiles; ++tile) {
      int64_t begin = tile * n_next / tiles.n_tiles;
      int64_t end = (tile + 1) * n_next / tiles.n_tiles;
      Ahead ahead = {next + begin * stride_bytes, stride_bytes, end - begin};
      multiply_tile_of<Format, kRows>(tiles.size(tile), p, tiles.begin(tile), row, ahead);
    }
  }
}

// Of a tile's activations, 4 KiB of each token (24 KiB for six) stay in L1
// while kChunkRows rows of weights pass over them from L2; the sums wait in
// memory until their next columns.
inline constexpr int kChunkRows = 48;
inline constexpr int64_t kBlockBytes = 4096;

template <class Format, int kTokens>
void multiply_chunk(const Product<Format>& p, int64_t token, int64_t first_row, int64_t n_rows) {
  constexpr int64_t kBlock = kBlockBytes / sizeof(typename Format::Activation);
  Sums<kTokens, 4> sums[kChunkRows / 4];
  for (auto& sum : sums) clear<kTokens, 4>(sum);
  for (int64_t k = 0; k < p.cols; k += kBlock) {
    int64_t end = k + kBlock < p.cols ? k + kBlock : p.cols;
    for (int64_t r = 0; r < n_rows; r += 4) {
      Sums<kTokens, 4> sum;
      copy<kTokens, 4>(sums[r / 4], sum);
      accumulate<Format, kTokens, 4>(p, token, first_row + r, k, end, sum);
      copy<kTokens, 4>(sum, sums[r / 4]);
    }
  }
  for (int64_t r = 0; r < n_rows; r += 4) {
    finish<Format, kTokens, 4>(p, token, first_row + r, sums[r / 4]);
  }
}

template <class Format, int kTokens = kAccumulators / 4>
void multiply_chunk_of(int64_t n_tokens, const Product<Format>& p, int64_t token, int64_t row,
                       int64_t n_rows) {
  if (n_tokens == kTokens) return multiply_chunk<Format, kTokens>(p, token, row, n_rows);
  if constexpr (kTokens > 1) {
    multiply_chunk_of<Format, kTokens - 1>(n_tokens, p, token, row, n_rows);
  }
}

// Many tokens: a tile of them stays in L1 while the rows, from L2, pass by.
template <class Format>
void multiply_many(const Product<Format>& p) {
  TokenTiles tiles(p.n_tokens, kAccumulators / 4);
  for (int64_t row = 0; row < p.n_rows; row += kChunkRows) {
    int64_t n_rows = p.n_rows - row < kChunkRows ? p.n_rows - row : kChunkRows;
    for (int64_t tile = 0; tile < tiles.n_tiles; ++tile) {
      multiply_chunk_of<Format>(tiles.size(tile), p, tiles.begin(tile), row, n_rows);
    }
  }
}

inline constexpr int64_t kManyTokens = 48;
inline constexpr int64_t kRowUnit = 8;  // the rows of a tile that one token meets

template <class Format>
void multiply(const void* x, int64_t n_tokens, const void* w, int64_t w_stride, int64_t n_rows,
              int64_t cols, float* out, int64_t out_stride, void*) {
  Product<Format> product = {static_cast<const typename Format::Activation*>(x),
                             prepared_cols<Format>(cols),
                             n_tokens,
                             static_cast<const typename Format::Weight*>(w),
                             w_stride,
                             n_rows,
                             cols,
                             out,
                             out_stride};
  if (n_tokens >= kManyTokens) {
    multiply_many(product);
  } else if (n_tokens * 8 > kAccumulators) {
    multiply_few<Format, 4>(product);
  } else {
    multiply_few<Format, 8>(product);
  }
}

template <class Format, int64_t kRowsPerTask>
constexpr MatmulKernel matmul_kernel() {
  return {prepared_bytes<Format>, kRowsPerTask,     prepare<Format>,
          no_scratch_bytes,       multiply<Format>, kRowUnit};
}

}  // namespace
}  // namespace influence
