// y = x @ W^T for q8 weights and many tokens, in AMX tiles. Include
// simd_avx512.h, vector_packed.h and simd_amx.h first.
//
// Bytes moved: W once for each call, the panel of the moment from L2 for each 16
// tokens. Bound: `tdpbsud` multiplies a group of 64 columns for 16 tokens and 16 rows
// in 16 cycles; bringing the tiles in and making scaled floats of the 256 sums takes
// three times that. (q4's groups of 32 would only half fill the tiles, and were
// slower than vectors.)
//
// A group's sums are exact, and meet the scales as in vector_packed.h, operation for
// operation: the same bits as there, so a call may choose by its size.
#pragma once

namespace influence {
namespace {

// Fewer tokens than this are left to the vectors: so few rows of a tile are slower, by measurement.
inline constexpr int64_t kManyPackedTokens = 7;

// Groups whose scales are at hand together.
inline constexpr int64_t kRunGroups = 64;

// Up to 16 tokens and a run of groups of theirs.
struct TokenRun {
  using Row = PreparedRow<DType::kQ8>;
  const int8_t* values;  // of the first token and group
  int64_t stride;        // bytes from a token's values to the next's
  int64_t n;
  alignas(kAlignment) int32_t corrections[kRunGroups][kTileRows] = {};
  alignas(kAlignment) float scales[kRunGroups][kTileRows] = {};

  TokenRun(const PackedProduct& p, int64_t token, int64_t first_group, int64_t n_groups)
      : values(Row(p.x, token, p.cols).values + first_group * Row::kCols),
        stride(Row::bytes(p.cols)),
        n(p.n_tokens - token < kTileRows ? p.n_tokens - token : kTileRows) {
    for (int64_t t = 0; t < n; ++t) {
      const Row row(p.x, token + t, p.cols);
      for (int64_t g = 0; g < n_groups; ++g) {
        corrections[g][t] = -128 * row.sums[first_group + g];
        scales[g][t] = row.scales[first_group + g];
      }
    }
  }
};

// One group's exact sums: of the tokens and of the panel's rows, 16 after 16.
using ExactSums = int32_t[kPanelVectors][kTileRows][kLanes];

inline void use_tiles(int64_t n_tokens) {
  Tiles tiles;
  for (int v = 0; v < kPanelVectors; ++v) tiles.size(v, n_tokens, kTileRowBytes);
  tiles.size(4, n_tokens, kTileRowBytes);
  tiles.size(5, kTileRows, kTileRowBytes);
  tiles.size(6, kTileRows, kTileRowBytes);
  tiles.use();
}

inline void group_sums(const TokenRun& tokens, int64_t group, const uint8_t* quads,
                       ExactSums& sums) {
  _tile_loadd(4, tokens.values + group * kTileRowBytes, tokens.stride);
  _tile_zero(0);
  _tile_loadd(5, quads, kQuadBytes);
  _tile_dpbsud(0, 4, 5);
  _tile_zero(1);
  _tile_loadd(6, quads + kVectorBytes, kQuadBytes);
  _tile_dpbsud(1, 4, 6);
  _tile_zero(2);
  _tile_loadd(5, quads + 2 * kVectorBytes, kQuadBytes);
  _tile_dpbsud(2, 4, 5);
  _tile_zero(3);
  _tile_loadd(6, quads + 3 * kVectorBytes, kQuadBytes);
  _tile_dpbsud(3, 4, 6);
  _tile_stored(0, sums[0], kTileRowBytes);
  _tile_stored(1, sums[1], kTileRowBytes);
  _tile_stored(2, sums[2], kTileRowBytes);
  _tile_stored(3, sums[3], kTileRowBytes);
}

using Totals = Vector[kPanelVectors][kTileRows];

inline void add_group_sums(const TokenRun& tokens, int64_t group, const char* scales,
                           const ExactSums& sums, Totals& total) {
  for (int v = 0; v < kPanelVectors; ++v) {
    const Vector scale = load(reinterpret_cast<const BF16*>(scales) + v * kLanes);
    UNROLL
    for (int t = 0; t < kTileRows; ++t) {
      const Ints sum = (Ints)_mm512_load_si512(sums[v][t]) + tokens.corrections[group][t];
      total[v][t] =
          multiply_add(to_floats(sum) * scale, broadcast(tokens.scales[group][t]), total[v][t]);
    }
  }
}

// The groups of a run for the rows of a panel, added to the outputs. While a group's
// sums become floats, the tiles multiply the next group.
inline void multiply_run_panel(const TokenRun& tokens, const Slab& slab, int64_t n_groups,
                               bool begins, float* out, int64_t out_stride, int64_t n_rows) {
  Totals total = {};
  for (int64_t v = 0; !begins && v * kLanes < n_rows; ++v) {
    for (int64_t t = 0; t < tokens.n; ++t) {
      total[v][t] = load(out + t * out_stride + v * kLanes, n_rows - v * kLanes);
    }
  }
  alignas(kAlignment) ExactSums sums[2] = {};
  group_sums(tokens, 0, slab.quads_of(0), sums[0]);
  for (int64_t g = 0; g < n_groups; ++g) {
    if (g + 1 < n_groups) {
      group_sums(tokens, g + 1, slab.quads_of(g + 1), sums[(g + 1) % 2]);
    }
    add_group_sums(tokens, g, slab.group(g), sums[g % 2], total);
  }
  for (int64_t v = 0; v * kLanes < n_rows; ++v) {
    for (int64_t t = 0; t < tokens.n; ++t) {
      store(out + t * out_stride + v * kLanes, total[v][t], n_rows - v * kLanes);
    }
  }
}

inline void multiply_packed_tiles(const void* x, int64_t n_tokens, const void* w, int64_t w_stride,
                                  int64_t n_rows, int64_t cols, float* out, int64_t out_stride,
                                  void*) {
  if (n_tokens < kManyPackedTokens) {
    return multiply_packed<Q8Panel>(x, n_tokens, w, w_stride, n_rows, cols, out, out_stride,
                                    nullptr);
  }
  const PackedProduct p = {x, n_tokens, cols, out, out_stride};
  for_each_slab<Q8Panel, kRunGroups>(
      w, n_rows, cols,
      [&](const Slab& slab, int64_t group, int64_t n_groups, int64_t row, int64_t rows) {
        for (int64_t token = 0; token < n_tokens; token += kTileRows) {
          const TokenRun tokens(p, token, group, n_groups);
          if (token == 0 || tokens.n < kTileRows) use_tiles(tokens.n);
          multiply_run_panel(tokens, slab, n_groups, group == 0, out + token * out_stride + row,
                             out_stride, rows);
        }
      });
  _tile_release();
}

}  // namespace
}  // namespace influence
