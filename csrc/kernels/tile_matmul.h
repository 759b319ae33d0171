// y = x @ W^T for BF16 weights exactly as they lie in the file, in AMX tiles.
// Include simd_avx512.h, vector_matmul.h and simd_amx.h first.
//
// Bytes moved: W once for each call; the activations stay in L2. Bound: with up
// to 16 tokens the memory that W streams from (a tile of 16 tokens costs what one
// token costs); with many the tiles' loads from L2. A tile whose rows lie a page
// apart takes 21 ns from there, one that lies in a piece 8, so many tokens meet
// tiles that were copied into pieces.
//
// `tdpbf16ps` adds to a tile (16 rows, n tokens) the product of a tile of weights
// (16 rows of 32 columns: 64 bytes of each row, where they lie) and a tile of
// activations (16 pairs of columns, n tokens, 2 numbers of each pair). So the
// activations of up to 16 tokens are first arranged pair by pair; one token's row
// is its own arrangement. Products are exact, subnormals count as 0; per 32
// columns the even and the odd ones are summed in their order, then added to the
// output: an order of the columns alone, so no shape of a call changes a bit.
#pragma once

namespace influence {
namespace {

inline constexpr int64_t kTileTokens = 16;
inline constexpr int64_t kTileCols = 32;  // bfloat16 in a tile's row
inline constexpr int64_t kPairBytes = 4;  // of one token
inline constexpr int64_t kTileElements = kTileRows * kTileCols;
inline constexpr int64_t kTileUnit = 2 * kTileRows;         // rows that a step of tiles covers
inline constexpr int kWeightTile = 4, kActivationTile = 6;  // the first two of each; sums: 0 to 3

// Tokens [group, group + 16) of prepared rows, arranged: (cols / 2, n tokens, 2).
struct TokenGroup {
  const char* pairs;
  int64_t n;  // 0: there is none

  int64_t stride() const { return n * kPairBytes; }
  const char* at(int64_t col) const { return pairs + col / 2 * stride(); }
};

inline void arrange_tokens(const void* rows, int64_t n_tokens, int64_t cols, void* out) {
  const int64_t padded = prepared_cols<DotBF16Format>(cols);
  const auto* from = static_cast<const char*>(rows);
  auto* to = static_cast<char*>(out);
  alignas(kAlignment) float block[kTileTokens * kTileTokens] = {};
  for (int64_t col = 0; col < padded; col += kTileCols) {
    for (int64_t t = 0; t < n_tokens; ++t) {
      store(block + t * kTileTokens,
            load(reinterpret_cast<const float*>(from + 2 * (t * padded + col))));
    }
    Vector pairs[kTileTokens];  // of 16 pairs of columns, a lane for each token
    transpose(block, pairs);
    for (const Vector& tokens : pairs) {
      store(reinterpret_cast<float*>(to), tokens, n_tokens);
      to += n_tokens * kPairBytes;
    }
  }
}

// What a multiply is about, as its tiles need it.
struct TileProduct {
  const char* x;  // arranged groups, one after another
  int64_t n_tokens;
  const BF16* w;
  int64_t w_stride;
  int64_t n_rows;
  int64_t cols;
  float* out;
  int64_t out_stride;

  TokenGroup group(int64_t token) const {
    const int64_t left = n_tokens - token;
    return {x + token * prepared_bytes<DotBF16Format>(cols), left <= 0            ? 0
                                                             : left < kTileTokens ? left
                                                                                  : kTileTokens};
  }
};

// The weights of a tile's rows that end before the tile does, zeros behind them.
struct TileEnd {
  alignas(kAlignment) BF16 rows[kTileRows * kTileCols];

  TileEnd(const BF16* w, int64_t stride, int64_t n_rows, int64_t n_cols) {
    const auto some = static_cast<__mmask32>((1ull << n_cols) - 1);
    for (int64_t r = 0; r < n_rows; ++r) {
      _mm512_store_si512(rows + r * kTileCols, _mm512_maskz_loadu_epi16(some, w + r * stride));
    }
    finish_writes();
  }
};

// One step: kRowTiles tiles of weights, `stride` elements from row to row, meet
// kTokenTiles tiles of activations. Tiles are named by constants.
template <int kRowTiles, int kTokenTiles>
inline void add_tiles(const BF16* const* w, int64_t stride, const TokenGroup* tokens, int64_t col) {
  const auto step = static_cast<size_t>(stride) * sizeof(BF16);
  _tile_loadd(6, tokens[0].at(col), tokens[0].stride());
  _tile_loadd(4, w[0], step);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kTokenTiles == 2) {
    _tile_loadd(7, tokens[1].at(col), tokens[1].stride());
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (kRowTiles == 2) {
    _tile_loadd(5, w[1], step);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kTokenTiles == 2) _tile_dpbf16ps(3, 5, 7);
  }
}

// Tiles of weights, each in a piece of its own: those of 16 rows side by side.
struct TileCopies {
  BF16* tiles;
  int64_t n_cols;  // of a run

  int64_t row_tile_elements() const { return ceil_div(n_cols, kTileCols) * kTileElements; }

  // 16 rows, `stride` elements apart, as the run's row tile `index`; zeros behind the last column.
  void copy(const BF16* rows, int64_t stride, int64_t index) const {
    BF16* to = tiles + index * row_tile_elements();
    for (int64_t r = 0; r < kTileRows; ++r) {
      const BF16* row = rows + r * stride;
      for (int64_t col = 0; col < n_cols; col += kTileCols) {
        const int64_t left = n_cols - col;
        const auto some = static_cast<__mmask32>(left < kTileCols ? (1ull << left) - 1 : ~0ull);
        _mm512_store_si512(to + col / kTileCols * kTileElements + r * kTileCols,
                           _mm512_maskz_loadu_epi16(some, row + col));
      }
    }
  }
};

// Outputs [row, row + rows of kRowTiles tiles) x those of kTokenTiles groups.
template <int kRowTiles, int kTokenTiles>
struct TileBlock {
  const TileProduct& p;
  int64_t row;
  int64_t token;
  TokenGroup tokens[2] = {p.group(token), p.group(token + kTileTokens)};

  int64_t rows_of(int tile) const {
    const int64_t left = p.n_rows - row - tile * kTileRows;
    return left < kTileRows ? left : kTileRows;
  }
  bool is_whole() const {
    return kRowTiles == 2 && kTokenTiles == 2 && rows_of(1) == kTileRows &&
           tokens[1].n == kTileTokens;
  }
  Tiles sizes() const {
    Tiles tiles;
    for (int r = 0; r < kRowTiles; ++r) {
      tiles.size(kWeightTile + r, rows_of(r), kTileRowBytes);
      for (int t = 0; t < kTokenTiles; ++t) {
        tiles.size(2 * r + t, rows_of(r), tokens[t].stride());
        tiles.size(kActivationTile + t, kTileCols / 2, tokens[t].stride());
      }
    }
    return tiles;
  }

  // Columns [begin, end) of the two tiles of rows that were copied, from `weights` on.
  void accumulate_copies(const TileCopies& copies, const BF16* weights, int64_t begin, int64_t end,
                         const Ahead& ahead) const {
    const BF16* at[2] = {weights, weights + copies.row_tile_elements()};
    for (int64_t col = begin; col < end; col += kTileCols) {
      ahead.fetch(col * 2, col * 2 + kTileRowBytes);
      add_tiles<kRowTiles, kTokenTiles>(at, kTileCols, tokens, col);
      at[0] += kTileElements;
      at[1] += kTileElements;
    }
  }

  // Columns [begin, end); `ahead` are rows to bring into the cache meanwhile.
  void accumulate(int64_t begin, int64_t end, const Ahead& ahead) const {
    const BF16* w[kRowTiles];
    for (int r = 0; r < kRowTiles; ++r) w[r] = p.w + (row + r * kTileRows) * p.w_stride;
    int64_t col = begin;
    for (; col + kTileCols <= end; col += kTileCols) {
      const BF16* at[kRowTiles];
      for (int r = 0; r < kRowTiles; ++r) at[r] = w[r] + col;
      ahead.fetch(col * 2, col * 2 + kTileRowBytes);
      add_tiles<kRowTiles, kTokenTiles>(at, p.w_stride, tokens, col);
    }
    if (col < end) add_end(w, col, end - col);
  }

  void clear() const {
    _tile_zero(0);
    if constexpr (kTokenTiles == 2) _tile_zero(1);
    if constexpr (kRowTiles == 2) _tile_zero(2);
    if constexpr (kRowTiles == 2 && kTokenTiles == 2) _tile_zero(3);
  }

  // The sums of a whole block, exactly as they are, between two runs of columns:
  // parked where the outputs will lie, rows and tokens exchanged.
  void park() const {
    _tile_stored(0, place(0, 0), stride());
    _tile_stored(1, place(0, 1), stride());
    _tile_stored(2, place(1, 0), stride());
    _tile_stored(3, place(1, 1), stride());
  }
  void fetch_parked() const {
    _tile_loadd(0, place(0, 0), stride());
    _tile_loadd(1, place(0, 1), stride());
    _tile_loadd(2, place(1, 0), stride());
    _tile_loadd(3, place(1, 1), stride());
  }

  void finish() const {
    alignas(kAlignment) float sums[kTileTokens * kTileRows] = {};
    _tile_stored(0, sums, kTileRowBytes);
    put(sums, 0, 0);
    if constexpr (kTokenTiles == 2) {
      _tile_stored(1, sums, kTileRowBytes);
      put(sums, 0, 1);
    }
    if constexpr (kRowTiles == 2) {
      _tile_stored(2, sums, kTileRowBytes);
      put(sums, 1, 0);
      if constexpr (kTokenTiles == 2) {
        _tile_stored(3, sums, kTileRowBytes);
        put(sums, 1, 1);
      }
    }
  }

 private:
  void add_end(const BF16* const* w, int64_t col, int64_t n_cols) const {
    const TileEnd first(w[0] + col, p.w_stride, rows_of(0), n_cols);
    const TileEnd second(w[kRowTiles - 1] + col, p.w_stride, rows_of(kRowTiles - 1), n_cols);
    const BF16* at[2] = {first.rows, second.rows};
    add_tiles<kRowTiles, kTokenTiles>(at, kTileCols, tokens, col);
  }

  float* place(int row_tile, int token_tile) const {
    return p.out + (token + token_tile * kTileTokens) * p.out_stride + row + row_tile * kTileRows;
  }
  int64_t stride() const { return p.out_stride * static_cast<int64_t>(sizeof(float)); }

  void put(const float* sums, int row_tile, int token_tile) const {
    Vector columns[kTileTokens];
    transpose(sums, columns);
    float* out = place(row_tile, token_tile);
    const int64_t rows = rows_of(row_tile);
    for (int64_t t = 0; t < tokens[token_tile].n; ++t) {
      store(out + t * p.out_stride, columns[t], rows);
    }
  }
};

template <int kRowTiles, int kTokenTiles>
void multiply_block(const TileProduct& p, int64_t row, int64_t token, const Ahead& ahead) {
  const TileBlock<kRowTiles, kTokenTiles> block{p, row, token};
  block.sizes().use();
  block.clear();
  block.accumulate(0, p.cols, ahead);
  block.finish();
}

inline void multiply_block_of(const TileProduct& p, int64_t row, int64_t token,
                              const Ahead& ahead) {
  const bool two_rows = p.n_rows - row > kTileRows, two_tokens = p.n_tokens - token > kTileTokens;
  if (two_rows && two_tokens) return multiply_block<2, 2>(p, row, token, ahead);
  if (two_rows) return multiply_block<2, 1>(p, row, token, ahead);
  if (two_tokens) return multiply_block<1, 2>(p, row, token, ahead);
  multiply_block<1, 1>(p, row, token, ahead);
}

// Up to 32 tokens: all meet 32 rows while these come from memory, once; meanwhile
// the next 32 are fetched.
inline void multiply_few_tiles(const TileProduct& p) {
  for (int64_t row = 0; row < p.n_rows; row += kTileUnit) {
    const int64_t left = p.n_rows - row - kTileUnit;
    const Ahead ahead = {reinterpret_cast<const char*>(p.w + (row + kTileUnit) * p.w_stride),
                         p.w_stride * 2,
                         left < 0           ? 0
                         : left < kTileUnit ? left
                                            : kTileUnit};
    multiply_block_of(p, row, 0, ahead);
  }
}

// Many tokens: 128 rows of up to 2048 columns, 512 KiB, are copied and stay in L2
// while all tokens pass by; sums of whole blocks are parked between two runs of columns.
inline constexpr int64_t kRunRows = 128, kRunCols = 2048;

inline int64_t copies_bytes(int64_t cols) {
  const int64_t n_cols = round_up(cols < kRunCols ? cols : kRunCols, kTileCols);
  return kRunRows * n_cols * static_cast<int64_t>(sizeof(BF16));
}

// A run: some columns of up to kRunRows rows, and what comes after it.
struct TileRun {
  int64_t begin, end;  // columns
  bool is_last;        // of these rows
  TileCopies copies;
  const char* next_rows;  // to be fetched meanwhile: kRunRows of them; null: none
};

// The rows that 32 tokens fetch for the next run while they meet one unit of this.
inline Ahead share_of_next(const TileProduct& p, const TileRun& run, int64_t token, int64_t unit) {
  if (run.next_rows == nullptr) return {};
  const int64_t n_units = kRunRows / kTileUnit;
  const int64_t n_shares = ceil_div(p.n_tokens, 2 * kTileTokens) * n_units;
  const int64_t share = token / (2 * kTileTokens) * n_units + unit;
  const int64_t first = kRunRows * share / n_shares;
  const int64_t stride_bytes = p.w_stride * static_cast<int64_t>(sizeof(BF16));
  return {run.next_rows + first * stride_bytes, stride_bytes,
          kRunRows * (share + 1) / n_shares - first};
}

inline void multiply_run(const TileProduct& p, int64_t token, const TileRun& run) {
  bool sized = false;
  for (int64_t row = 0; row < p.n_rows; row += kTileUnit) {
    const TileBlock<2, 2> block{p, row, token};
    if (!block.is_whole()) {  // at the edges: all columns at once
      if (run.is_last) multiply_block_of(p, row, token, {});
      continue;
    }
    if (!sized) block.sizes().use();
    sized = true;
    if (run.begin == 0) {
      block.clear();
    } else {
      block.fetch_parked();
    }
    block.accumulate_copies(run.copies,
                            run.copies.tiles + row / kTileRows * run.copies.row_tile_elements(),
                            run.begin, run.end, share_of_next(p, run, token, row / kTileUnit));
    if (run.is_last) {
      block.finish();
    } else {
      block.park();
    }
  }
}

inline void copy_whole_units(const TileProduct& p, const TileRun& run) {
  const int64_t whole = p.n_rows / kTileUnit * kTileUnit;
  for (int64_t row = 0; row < whole; row += kTileRows) {
    run.copies.copy(p.w + row * p.w_stride + run.begin, p.w_stride, row / kTileRows);
  }
  finish_writes();
}

inline void multiply_many_tiles(TileProduct p, BF16* scratch) {
  const int64_t all_rows = p.n_rows;
  for (int64_t row = 0; row < all_rows; row += kRunRows) {
    const int64_t left = all_rows - row;
    p.n_rows = left < kRunRows ? left : kRunRows;
    for (int64_t begin = 0; begin < p.cols; begin += kRunCols) {
      const int64_t end = p.cols - begin < kRunCols ? p.cols : begin + kRunCols;
      const bool has_next = left >= 2 * kRunRows;
      const TileRun run = {
          begin,
          end,
          end == p.cols,
          {scratch, end - begin},
          has_next ? reinterpret_cast<const char*>(p.w + kRunRows * p.w_stride) : nullptr};
      copy_whole_units(p, run);
      for (int64_t token = 0; token < p.n_tokens; token += 2 * kTileTokens) {
        multiply_run(p, token, run);
      }
    }
    p.w += kRunRows * p.w_stride;
    p.out += kRunRows;
  }
}

inline void multiply_tiles(const void* x, int64_t n_tokens, const void* w, int64_t w_stride,
                           int64_t n_rows, int64_t cols, float* out, int64_t out_stride,
                           void* scratch) {
  const TileProduct product = {static_cast<const char*>(x),
                               n_tokens,
                               static_cast<const BF16*>(w),
                               w_stride,
                               n_rows,
                               cols,
                               out,
                               out_stride};
  if (n_tokens <= 2 * kTileTokens) {
    multiply_few_tiles(product);
  } else {
    multiply_many_tiles(product, static_cast<BF16*>(scratch));
  }
  _tile_release();
}

}  // namespace
}  // namespace influence
