// y = x @ W^T for weights packed in panels (packed.h). Include a simd_*.h first.
//
// Bytes moved: W once for each call, panel by panel in the order of memory; the
// activations, a byte a number, stay in cache. Bound: with few tokens the memory
// that W streams from; with many the integer dot products.
//
// Lanes are output rows, so no sum crosses lanes. A tile is kTokens x 4 vectors of
// integer sums, begun anew in each group of columns: for each 4 columns, 4 vectors
// of weights meet a broadcast of 4 activations of each token. A group's sums, exact
// so far, become floats and are added, times both scales, to the outputs (q8: 3
// operations after 16 dot products). q4's scales are whole numbers, and so are the
// sums of a block of 256 columns: below 2^31, whatever their order (2.5 operations
// after 8 dot products). An output's blocks are added in their order whatever the
// tile: the bits do not depend on the shape.
//
// q4 is first unpacked to bytes, 512 columns of a panel (32 KiB) at a time.
#pragma once

#include "packed_rows.h"
#include "unroll.h"

namespace influence {
namespace {

inline constexpr int kPackedVectors = 4;  // of a tile
inline constexpr int kPackedTokens = kAccumulators >= 24 ? 6 : 2;
inline constexpr int64_t kPanelVectors = kPanelRows / kLanes;
inline constexpr int64_t kVectorBytes = 4 * kLanes;

// Some groups of a panel, a byte for each weight.
struct Slab {
  const char* groups;    // the first group, whose scales come first
  const uint8_t* quads;  // of the first group
  int64_t quads_stride;  // bytes from group to group
  int64_t groups_stride;
  const float* bases;  // of the panel's rows, where there are any

  const char* group(int64_t i) const { return groups + i * groups_stride; }
  const uint8_t* quads_of(int64_t i) const { return quads + i * quads_stride; }
};

// The groups [first, first + n) of a panel: as they lie,
struct Q8Panel {
  static constexpr DType kType = DType::kQ8;
  static constexpr int64_t kSlabGroups = 1 << 30;
  static constexpr int64_t kScratchBytes = 1;

  static Slab slab(const char* panel, int64_t first, int64_t, uint8_t*) {
    const char* group = panel + first * group_bytes(kType);
    return {group, reinterpret_cast<const uint8_t*>(group + kScaleBytes), group_bytes(kType),
            group_bytes(kType), nullptr};
  }

  // What a vector of rows' sums are in the end.
  static Vector finished(const Slab&, int64_t, Vector total) { return total; }
};

// or unpacked.
struct Q4Panel {
  static constexpr DType kType = DType::kQ4;
  static constexpr int64_t kSlabGroups = 16;
  static constexpr int64_t kGroupQuadBytes = group_cols(kType) / 4 * kQuadBytes;
  static constexpr int64_t kBasesBytes = kPanelRows * static_cast<int64_t>(sizeof(float));
  static constexpr int64_t kScratchBytes = kBasesBytes + kSlabGroups * kGroupQuadBytes;

  static Slab slab(const char* panel, int64_t first, int64_t n, uint8_t* scratch) {
    auto* bases = reinterpret_cast<float*>(scratch);
    uint8_t* quads = scratch + kBasesBytes;
    load_bases(panel, bases);
    const char* group = panel + kQ4HeadBytes + first * group_bytes(kType);
    for (int64_t i = 0; i < n; ++i) {
      unpack(group + i * group_bytes(kType) + kScaleBytes, quads + i * kGroupQuadBytes);
    }
    return {group, quads, kGroupQuadBytes, group_bytes(kType), bases};
  }

  static void load_bases(const char* panel, float* bases) {  // (kPanelRows,)
    for (int64_t row = 0; row < kPanelRows; row += kLanes) {
      const auto* exponents = reinterpret_cast<const uint8_t*>(panel) + row;
      store(bases + row, as_floats(load_ints(exponents) << kMantissaBits));
    }
  }

  static Vector finished(const Slab& slab, int64_t row, Vector total) {
    return total * load(slab.bases + row);
  }

 private:
  static void unpack(const char* codes, uint8_t* quads) {
    const Bytes values = load_table(kQ4Values);
    for (int64_t pair = 0; pair < group_cols(kType) / 8; ++pair) {
      for (int64_t at = 0; at < kQuadBytes; at += kVectorBytes) {
        const Bytes both = load_bytes(reinterpret_cast<const uint8_t*>(codes) + at);
        store_bytes(quads + at, look_up(values, low_halves(both)));
        store_bytes(quads + kQuadBytes + at, look_up(values, high_halves(both)));
      }
      codes += kQuadBytes;
      quads += 2 * kQuadBytes;
    }
  }
};

// What a multiply is about.
struct PackedProduct {
  const void* x;  // prepared rows
  int64_t n_tokens;
  int64_t cols;
  float* out;
  int64_t out_stride;
};

// The exact sums of one group for a tile: kTokens tokens, kPackedVectors vectors of rows.
template <int kTokens>
using GroupSums = Ints[kTokens][kPackedVectors];

// Of the rows' group `group`, whose weights are at `w`.
template <DType kPacked, int kTokens>
inline void add_products(const PreparedRow<kPacked>* rows, int64_t group, const uint8_t* w,
                         GroupSums<kTokens>& sum) {
  constexpr int64_t kCols = group_cols(kPacked);
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    UNROLL
    for (int v = 0; v < kPackedVectors; ++v) sum[t][v] = first_sum(rows[t].sums[group]);
  }
  for (int64_t k = 0; k < kCols; k += 4, w += kQuadBytes) {
    Bytes weights[kPackedVectors];
    UNROLL
    for (int v = 0; v < kPackedVectors; ++v) weights[v] = load_bytes(w + v * kVectorBytes);
    UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const Bytes x = broadcast_four(rows[t].values + group * kCols + k);
      UNROLL
      for (int v = 0; v < kPackedVectors; ++v) sum[t][v] = dot(sum[t][v], weights[v], x);
    }
  }
}

// Adds to the outputs a block of the rows that begins with their group `group`: of the
// slab the groups [g, g + n_groups), and kPackedVectors vectors from `vector` on.
template <int kTokens>
inline void add_block(const PreparedRow<DType::kQ8>* rows, int64_t group, const Slab& slab,
                      int64_t g, int64_t, int64_t vector,
                      Vector (*total)[kPanelVectors]) {  // (kTokens,)
  GroupSums<kTokens> sum;
  add_products<DType::kQ8, kTokens>(rows, group, slab.quads_of(g) + vector * kVectorBytes, sum);
  const auto* scales = reinterpret_cast<const BF16*>(slab.group(g));
  UNROLL
  for (int v = 0; v < kPackedVectors; ++v) {
    const Vector scale = load(scales + (vector + v) * kLanes);
    UNROLL
    for (int t = 0; t < kTokens; ++t) {
      total[t][vector + v] = multiply_add(to_floats(sum[t][v]) * scale,
                                          broadcast(rows[t].scales[group]), total[t][vector + v]);
    }
  }
}

// What the zeros of q4 take away, as words: -scale * zero of two groups, the
// second of which may not exist, for a vector of rows.
inline Ints q4_zero_words(const char* first, const char* second, int64_t row) {
  const auto of = [row](const char* group) {
    return load_ints(reinterpret_cast<const uint8_t*>(group) + row) *
           -load_ints(reinterpret_cast<const int8_t*>(group) + kPanelRows + row);
  };
  const Ints low = of(first) & broadcast_int(0xffff);
  return second == nullptr ? low : low | of(second) << 16;
}

// What meets them: the sums of two groups of activations, broadcast.
inline Ints sum_words(const int16_t* sums) {
  int32_t both;
  memcpy(&both, sums, sizeof(both));
  return broadcast_int(both);
}

template <int kTokens>
inline void add_block(const PreparedRow<DType::kQ4>* rows, int64_t group, const Slab& slab,
                      int64_t g, int64_t n_groups, int64_t vector,
                      Vector (*total)[kPanelVectors]) {  // (kTokens,)
  GroupSums<kTokens> block = {};
  for (int64_t i = 0; i < n_groups; ++i) {
    GroupSums<kTokens> sum;
    add_products<DType::kQ4, kTokens>(rows, group + i, slab.quads_of(g + i) + vector * kVectorBytes,
                                      sum);
    const auto* scales = reinterpret_cast<const uint8_t*>(slab.group(g + i));
    UNROLL
    for (int v = 0; v < kPackedVectors; ++v) {
      const Ints scale = load_ints(scales + (vector + v) * kLanes);
      UNROLL
      for (int t = 0; t < kTokens; ++t) block[t][v] += sum[t][v] * scale;
    }
  }
  for (int64_t i = 0; i < n_groups; i += 2) {
    const char* second = i + 1 < n_groups ? slab.group(g + i + 1) : nullptr;
    UNROLL
    for (int v = 0; v < kPackedVectors; ++v) {
      const Ints zeros = q4_zero_words(slab.group(g + i), second, (vector + v) * kLanes);
      UNROLL
      for (int t = 0; t < kTokens; ++t) {
        block[t][v] = dot_words(block[t][v], zeros, sum_words(rows[t].sums + group + i));
      }
    }
  }
  UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const Vector scale = broadcast(rows[t].scales[group / PreparedRow<DType::kQ4>::kBlockGroups]);
    UNROLL
    for (int v = 0; v < kPackedVectors; ++v) {
      total[t][vector + v] = multiply_add(to_floats(block[t][v]), scale, total[t][vector + v]);
    }
  }
}

// The slab's groups [first_group, first_group + n_groups) for kTokens tokens, added to
// the outputs of n_rows rows; the first groups of a row begin them.
template <class Panel, int kTokens>
void multiply_slab(const PackedProduct& p, int64_t token, const Slab& slab, int64_t first_group,
                   int64_t n_groups, int64_t first_row, int64_t n_rows) {
  using Row = PreparedRow<Panel::kType>;
  float* out = p.out + token * p.out_stride + first_row;
  Row rows[kTokens];
  for (int t = 0; t < kTokens; ++t) rows[t] = Row(p.x, token + t, p.cols);
  Vector total[kTokens][kPanelVectors];
  for (int t = 0; t < kTokens; ++t) {
    for (int64_t v = 0; v < kPanelVectors; ++v) {
      const int64_t left = n_rows - v * kLanes;
      total[t][v] =
          first_group == 0 || left <= 0 ? zero() : load(out + t * p.out_stride + v * kLanes, left);
    }
  }
  for (int64_t g = 0; g < n_groups; g += Row::kBlockGroups) {
    const int64_t left = n_groups - g;
    const int64_t n = left < Row::kBlockGroups ? left : Row::kBlockGroups;
    for (int64_t v = 0; v < kPanelVectors; v += kPackedVectors) {
      add_block<kTokens>(rows, first_group + g, slab, g, n, v, total);
    }
  }
  const bool is_last = first_group + n_groups == Row::n_groups(p.cols);
  for (int t = 0; t < kTokens; ++t) {
    for (int64_t v = 0; v * kLanes < n_rows; ++v) {
      const Vector sums = is_last ? Panel::finished(slab, v * kLanes, total[t][v]) : total[t][v];
      store(out + t * p.out_stride + v * kLanes, sums, n_rows - v * kLanes);
    }
  }
}

template <class Panel, int kTokens = kPackedTokens>
void multiply_slab_of(int64_t n_tokens, const PackedProduct& p, int64_t token, const Slab& slab,
                      int64_t first_group, int64_t n_groups, int64_t first_row, int64_t n_rows) {
  if (n_tokens == kTokens) {
    multiply_slab<Panel, kTokens>(p, token, slab, first_group, n_groups, first_row, n_rows);
  } else if constexpr (kTokens > 1) {
    multiply_slab_of<Panel, kTokens - 1>(n_tokens, p, token, slab, first_group, n_groups, first_row,
                                         n_rows);
  }
}

// Cuts a matrix into slabs of at most kMostGroups groups, and calls f(slab, its first group, its
// groups, the panel's first row, its rows) for each.
template <class Panel, int64_t kMostGroups = Panel::kSlabGroups, class F>
void for_each_slab(const void* w, int64_t n_rows, int64_t cols, F f) {
  alignas(kAlignment) uint8_t scratch[Panel::kScratchBytes];
  constexpr int64_t kGroups = kMostGroups < Panel::kSlabGroups ? kMostGroups : Panel::kSlabGroups;
  const int64_t n_groups = ceil_div(cols, group_cols(Panel::kType));
  const char* panel = static_cast<const char*>(w);
  for (int64_t row = 0; row < n_rows; row += kPanelRows, panel += panel_bytes(Panel::kType, cols)) {
    const int64_t rows = n_rows - row < kPanelRows ? n_rows - row : kPanelRows;
    for (int64_t group = 0; group < n_groups; group += kGroups) {
      const int64_t left = n_groups - group;
      const int64_t n = left < kGroups ? left : kGroups;
      f(Panel::slab(panel, group, n, scratch), group, n, row, rows);
    }
  }
}

template <class Panel>
void multiply_packed(const void* x, int64_t n_tokens, const void* w, int64_t, int64_t n_rows,
                     int64_t cols, float* out, int64_t out_stride, void*) {
  const PackedProduct p = {x, n_tokens, cols, out, out_stride};
  const TokenTiles tiles(n_tokens, kPackedTokens);
  for_each_slab<Panel>(w, n_rows, cols,
                       [&](const Slab& slab, int64_t group, int64_t n, int64_t row, int64_t rows) {
                         for (int64_t tile = 0; tile < tiles.n_tiles; ++tile) {
                           multiply_slab_of<Panel>(tiles.size(tile), p, tiles.begin(tile), slab,
                                                   group, n, row, rows);
                         }
                       });
}

template <class Panel>
constexpr MatmulKernel packed_kernel() {
  return {packed_prepared_bytes<Panel::kType>,
          kPanelRows,
          packed_prepare<Panel::kType>,
          no_scratch_bytes,
          multiply_packed<Panel>,
          kPanelRows};
}

}  // namespace
}  // namespace influence
