// y = x @ W^T for q4 weights and many tokens, in AMX tiles. Include simd_avx512.h,
// vector_packed.h and simd_amx.h first.
//
// A weight is base * (scale * value - scale * zero). `scale * value` is a whole number
// of 16 bits, so its two bytes go into tiles of their own, full ones, and
// 256 * (high bytes) + (low bytes) is a block's exact sum, but for the zeros, which
// vectors add: the same bits as vector_packed.h, so a call may choose by its size.
//
// Bytes moved: W once for each 512 tokens; a block of a panel, unpacked to 32 KiB, stays
// near while all tokens pass by, 32 of them at a time. Bound: the tiles. For 32 tokens
// and 16 rows a block takes sixteen multiplications of tiles, 256 cycles, and some 160
// for the vectors, which work on the sums of the tiles before.
#pragma once

namespace influence {
namespace {

// Fewer tokens than this are left to the vectors, for the same reason as q8's.
inline constexpr int64_t kManyQ4Tokens = 11;

inline constexpr int64_t kQ4BlockGroups = PreparedRow<DType::kQ4>::kBlockGroups;
inline constexpr int64_t kQ4Pairs = kQ4BlockGroups / 2;  // of groups: 64 columns, a tile of weights

// A block of a panel, as tiles: of each vector of 16 rows and pair of groups the high
// and the low bytes of scale * value, 4 columns after 4 columns.
struct Q4Block {
  alignas(kAlignment) uint8_t high[kPanelVectors][kQ4Pairs][kTileBytes];
  alignas(kAlignment) uint8_t low[kPanelVectors][kQ4Pairs][kTileBytes];
  Ints zeros[kPanelVectors][kQ4Pairs];  // see q4_zero_words
  int64_t n_pairs;

  // The groups [first, first + n) of a panel.
  void unpack(const char* panel, int64_t first, int64_t n) {
    n_pairs = ceil_div(n, int64_t{2});
    for (int64_t pair = 0; pair < n_pairs; ++pair) {
      const char* one = panel + kQ4HeadBytes + (first + 2 * pair) * group_bytes(DType::kQ4);
      const char* other = 2 * pair + 1 < n ? one + group_bytes(DType::kQ4) : nullptr;
      for (int64_t v = 0; v < kPanelVectors; ++v) {
        unpack_group(one, v, high[v][pair], low[v][pair]);
        unpack_group(other, v, high[v][pair] + kTileBytes / 2, low[v][pair] + kTileBytes / 2);
        zeros[v][pair] = q4_zero_words(one, other, v * kLanes);
      }
    }
  }

 private:
  // Half a tile; nothing where there is no group.
  static void unpack_group(const char* group, int64_t v, uint8_t* high, uint8_t* low) {
    if (group == nullptr) {
      memset(high, 0, kTileBytes / 2);
      memset(low, 0, kTileBytes / 2);
      return;
    }
    const Ints scales = load_ints(reinterpret_cast<const uint8_t*>(group) + v * kLanes);
    const Ints even = scales | scales << 16;  // of columns 0 and 2 of four
    const auto* codes = reinterpret_cast<const uint8_t*>(group) + kScaleBytes + v * kVectorBytes;
    const Bytes values =
        _mm512_sub_epi8(load_table(kQ4Values), broadcast_byte(128));  // as signed bytes
    for (int64_t octet = 0; octet < group_cols(DType::kQ4) / 8; ++octet, codes += kQuadBytes) {
      const Bytes both = load_bytes(codes);
      multiply_by_scales(look_up(values, low_halves(both)), even, high, low);
      multiply_by_scales(look_up(values, high_halves(both)), even, high + kTileRowBytes,
                         low + kTileRowBytes);
      high += 2 * kTileRowBytes;
      low += 2 * kTileRowBytes;
    }
  }

  static void multiply_by_scales(Bytes values, Ints even_scales, uint8_t* high, uint8_t* low) {
    const __m512i even = _mm512_maddubs_epi16((__m512i)even_scales, values);
    const __m512i odd = _mm512_maddubs_epi16((__m512i)(even_scales << 8), values);
    const Bytes low_byte = _mm512_set1_epi16(0xff);
    store_bytes(high, select_bits(low_byte, _mm512_srli_epi16(even, 8), odd));
    store_bytes(low, select_bits(low_byte, even, _mm512_slli_epi16(odd, 8)));
  }
};

// Up to 16 tokens.
struct Q4Tokens {
  using Row = PreparedRow<DType::kQ4>;
  int64_t token;
  Row first;
  int64_t stride;  // bytes from one token's row to the next's
  int64_t n;

  Q4Tokens(const PackedProduct& p, int64_t token)
      : token(token),
        first(p.x, token, p.cols),
        stride(Row::bytes(p.cols)),
        n(p.n_tokens - token < kTileRows ? p.n_tokens - token : kTileRows) {}

  const int8_t* values(int64_t block) const { return first.values + block * Row::kBlockCols; }
  const int16_t* sums(int64_t t, int64_t block) const {
    return of(first.sums, t) + block * kQ4BlockGroups;
  }
  float scale(int64_t t, int64_t block) const { return of(first.scales, t)[block]; }

 private:
  template <class T>
  const T* of(const T* p, int64_t t) const {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(p) + t * stride);
  }
};

// Sums of a block for 16 tokens and 16 rows.
struct Q4TileSums {
  alignas(kAlignment) int32_t high[kTileRows][kLanes];
  alignas(kAlignment) int32_t low[kTileRows][kLanes];
};

// What a panel's outputs are so far: of each 16 tokens and vector of rows in a piece,
// for outputs lie pages apart, and all of them in a few sets of the cache.
class Q4Totals {
 public:
  explicit Q4Totals(float* scratch) : totals_(scratch) {}

  // Adds the tiles' sums of a block for 16 tokens and the panel's vector `v` of rows.
  void add(const Q4Tokens& tokens, int64_t block, const Q4Block& weights, int64_t v,
           const Q4TileSums& sums) const {
    float* total = at(tokens.token, v);
    for (int64_t t = 0; t < tokens.n; ++t, total += kLanes) {
      Ints sum = (Ints)_mm512_load_si512(sums.high[t]) << 8;
      sum += (Ints)_mm512_load_si512(sums.low[t]);
      const int16_t* x_sums = tokens.sums(t, block);
      for (int64_t pair = 0; pair < weights.n_pairs; ++pair) {
        sum = dot_words(sum, weights.zeros[v][pair], sum_words(x_sums + 2 * pair));
      }
      const Vector before = block == 0 ? zero() : load(total);
      store(total, multiply_add(to_floats(sum), broadcast(tokens.scale(t, block)), before));
    }
  }

  // Once all blocks are there: the outputs of `n_rows` rows from `row` on.
  void put(const PackedProduct& p, int64_t row, int64_t n_rows, const char* panel) const {
    alignas(kAlignment) float bases[kPanelRows];
    Q4Panel::load_bases(panel, bases);
    for (int64_t t = 0; t < p.n_tokens; ++t) {
      for (int64_t v = 0; v * kLanes < n_rows; ++v) {
        const Vector total = load(at(t, v) + t % kTileRows * kLanes);
        store(p.out + t * p.out_stride + row + v * kLanes, total * load(bases + v * kLanes),
              n_rows - v * kLanes);
      }
    }
  }

 private:
  float* at(int64_t token, int64_t v) const {  // of the 16 tokens that it is one of
    return totals_ + (token / kTileRows * kPanelVectors + v) * kTileRows * kLanes;
  }

  float* totals_;
};

inline void use_q4_tiles(int64_t n_first, int64_t n_second) {
  Tiles tiles;
  tiles.size(0, n_first, kTileRowBytes).size(1, n_first, kTileRowBytes);
  tiles.size(4, n_first, kTileRowBytes);
  if (n_second > 0) {
    tiles.size(2, n_second, kTileRowBytes).size(3, n_second, kTileRowBytes);
    tiles.size(5, n_second, kTileRowBytes);
  }
  tiles.size(6, kTileRows, kTileRowBytes).size(7, kTileRows, kTileRowBytes);
  tiles.use();
}

// 32 tokens, or at most 16, and a block of a panel. While a vector of rows' sums
// become outputs, the tiles multiply the next one's.
template <bool kTwo>
class Q4Step {
 public:
  Q4Step(const PackedProduct& p, int64_t token, int64_t block, const Q4Block& weights)
      : block_(block),
        weights_(weights),
        first_(p, token),
        second_(kTwo ? Q4Tokens(p, token + kTileRows) : first_) {}

  void run(const Q4Totals& totals) {
    multiply(0);
    for (int64_t v = 0; v < kPanelVectors; ++v) {
      if (v + 1 < kPanelVectors) multiply(v + 1);
      totals.add(first_, block_, weights_, v, sums_[v % 2][0]);
      if constexpr (kTwo) totals.add(second_, block_, weights_, v, sums_[v % 2][1]);
    }
  }

 private:
  // Activations are signed, the high bytes of weights too, the low ones not.
  void multiply(int64_t v) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
    const int8_t* first = first_.values(block_);
    const int8_t* second = second_.values(block_);
    for (int64_t pair = 0; pair < weights_.n_pairs; ++pair) {
      _tile_loadd(4, first + pair * kTileRowBytes, first_.stride);
      _tile_loadd(6, weights_.high[v][pair], kTileRowBytes);
      _tile_dpbssd(0, 4, 6);
      _tile_loadd(7, weights_.low[v][pair], kTileRowBytes);
      _tile_dpbsud(1, 4, 7);
      if constexpr (kTwo) {
        _tile_loadd(5, second + pair * kTileRowBytes, second_.stride);
        _tile_dpbssd(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      }
    }
    Q4TileSums* sums = sums_[v % 2];
    _tile_stored(0, sums[0].high, kTileRowBytes);
    _tile_stored(1, sums[0].low, kTileRowBytes);
    if constexpr (kTwo) {
      _tile_stored(2, sums[1].high, kTileRowBytes);
      _tile_stored(3, sums[1].low, kTileRowBytes);
    }
  }

  const int64_t block_;
  const Q4Block& weights_;
  const Q4Tokens first_, second_;
  Q4TileSums sums_[2][2];
};

inline void add_q4_block(const PackedProduct& p, int64_t block, const Q4Block& weights,
                         const Q4Totals& totals) {
  for (int64_t token = 0; token < p.n_tokens; token += 2 * kTileRows) {
    const int64_t left = p.n_tokens - token;
    const bool is_whole = left >= 2 * kTileRows;
    if (token == 0 || !is_whole) {
      const int64_t n_first = left < kTileRows ? left : kTileRows;
      use_q4_tiles(n_first, is_whole ? kTileRows : left - n_first);
    }
    if (left > kTileRows) {
      Q4Step<true>(p, token, block, weights).run(totals);
    } else {
      Q4Step<false>(p, token, block, weights).run(totals);
    }
  }
}

inline void multiply_q4_panels(const PackedProduct& p, const char* panel, int64_t n_rows,
                               const Q4Totals& totals) {
  const int64_t n_groups = ceil_div(p.cols, group_cols(DType::kQ4));
  Q4Block weights;
  for (int64_t row = 0; row < n_rows; row += kPanelRows, panel += panel_bytes(DType::kQ4, p.cols)) {
    for (int64_t group = 0; group < n_groups; group += kQ4BlockGroups) {
      const int64_t left = n_groups - group;
      weights.unpack(panel, group, left < kQ4BlockGroups ? left : kQ4BlockGroups);
      finish_writes();
      add_q4_block(p, group / kQ4BlockGroups, weights, totals);
    }
    totals.put(p, row, n_rows - row < kPanelRows ? n_rows - row : kPanelRows, panel);
  }
}

// As many tokens at once as there is room for totals; the decoder gives no more.
inline constexpr int64_t kQ4RunTokens = 512;

inline int64_t q4_totals_bytes(int64_t) {
  return kQ4RunTokens * kPanelRows * static_cast<int64_t>(sizeof(float));
}

inline void multiply_q4_tiles(const void* x, int64_t n_tokens, const void* w, int64_t w_stride,
                              int64_t n_rows, int64_t cols, float* out, int64_t out_stride,
                              void* scratch) {
  if (n_tokens < kManyQ4Tokens) {
    return multiply_packed<Q4Panel>(x, n_tokens, w, w_stride, n_rows, cols, out, out_stride,
                                    nullptr);
  }
  const Q4Totals totals(static_cast<float*>(scratch));
  for (int64_t token = 0; token < n_tokens; token += kQ4RunTokens) {
    const int64_t left = n_tokens - token;
    const PackedProduct p = {
        static_cast<const char*>(x) + token * PreparedRow<DType::kQ4>::bytes(cols),
        left < kQ4RunTokens ? left : kQ4RunTokens, cols, out + token * out_stride, out_stride};
    multiply_q4_panels(p, static_cast<const char*>(w), n_rows, totals);
  }
  _tile_release();
}

}  // namespace
}  // namespace influence
