// y = x @ W^T for bfloat16 weights in twelve bits (packed.h), in AMX tiles: the very
// bits of the product with stored weights. Include tile_matmul.h and vector_bf12.h first.
//
// Bytes moved: three quarters of the stored product's. Up to 32 tokens meet 64 columns
// of 32 rows, 4 KiB, as soon as they are unpacked in L1, while the sums stay in their
// tiles; more of them meet rows that were unpacked whole.
#pragma once

namespace influence {
namespace {

inline constexpr int64_t kTilePanels = kTileUnit / kBF12Rows;

// 64 columns of 32 rows, unpacked; what lies beyond the matrix stays 0.
class UnpackedBlock {
 public:
  UnpackedBlock(const char* panels, int64_t n_panels, int64_t cols, const char* end) {
    for (; n_ < n_panels; ++n_, panels += panel_bytes(DType::kBF12, cols)) {
      const BF12Panel panel(panels, cols);
      sources_[n_] = {panel, BF12Patches(panel, cols), ahead_of(panels, cols, end)};
    }
  }

  void unpack(int64_t col) {
    for (int64_t i = 0; i < n_; ++i) {
      Source& source = sources_[i];
      BF16* out = rows_ + i * kBF12Rows * kBF12Cols;
      source.next.fetch(2 * col, 2 * (col + kBF12Cols));
      for (int64_t r = 0; r < kBF12Rows; ++r) {
        unpack_row(source.panel.block(col, r), source.panel.codes(r), out + r * kBF12Cols);
      }
      source.patches.apply(col, 0, kBF12Rows, out, kBF12Cols);
    }
    finish_writes();
  }

  // Row 16 `tile`, from column `col` of the block on; rows are kBF12Cols apart.
  const BF16* at(int tile, int64_t col) const { return rows_ + tile * kTileRows * kBF12Cols + col; }

 private:
  struct Source {
    BF12Panel panel;
    BF12Patches patches;
    Ahead next = {};
  };

  // The panel that takes this one's place in the next 32 rows.
  static Ahead ahead_of(const char* panel, int64_t cols, const char* end) {
    const char* next = panel + kTilePanels * panel_bytes(DType::kBF12, cols);
    return {next < end ? next : panel, 2 * cols, kNextRows};
  }

  Source sources_[kTilePanels];
  int64_t n_ = 0;
  alignas(kAlignment) BF16 rows_[kTileUnit * kBF12Cols] = {};
};

template <int kRowTiles, int kTokenTiles>
void multiply_bf12_block(const TileProduct& p, int64_t row, UnpackedBlock& weights) {
  const TileBlock<kRowTiles, kTokenTiles> block{p, row, 0};
  block.sizes().use();
  block.clear();
  for (int64_t k = 0; k < p.cols; k += kBF12Cols) {
    weights.unpack(k);
    for (int64_t col = 0; col < kBF12Cols && k + col < p.cols; col += kTileCols) {
      const BF16* at[2] = {weights.at(0, col), weights.at(1, col)};
      add_tiles<kRowTiles, kTokenTiles>(at, kBF12Cols, block.tokens, k + col);
    }
  }
  block.finish();
}

inline void multiply_bf12_rows(const TileProduct& p, int64_t row, UnpackedBlock& weights) {
  const bool two_rows = p.n_rows - row > kTileRows, two_tokens = p.n_tokens > kTileTokens;
  if (two_rows && two_tokens) return multiply_bf12_block<2, 2>(p, row, weights);
  if (two_rows) return multiply_bf12_block<2, 1>(p, row, weights);
  if (two_tokens) return multiply_bf12_block<1, 2>(p, row, weights);
  multiply_bf12_block<1, 1>(p, row, weights);
}

inline int64_t unpacked_and_copies_bytes(int64_t cols) {
  return unpacked_bytes(cols) + copies_bytes(cols);
}

inline void multiply_bf12_tiles(const void* x, int64_t n_tokens, const void* w, int64_t w_stride,
                                int64_t n_rows, int64_t cols, float* out, int64_t out_stride,
                                void* scratch) {
  if (n_tokens > 2 * kTileTokens) {
    return multiply_unpacked_by<multiply_tiles>(x, n_tokens, w, w_stride, n_rows, cols, out,
                                                out_stride, scratch);
  }
  const TileProduct p = {
      static_cast<const char*>(x), n_tokens, nullptr, 0, n_rows, cols, out, out_stride};
  const char* panels = static_cast<const char*>(w);
  const char* end = panels + packed_bytes(DType::kBF12, n_rows, cols);
  for (int64_t row = 0; row < n_rows; row += kTileUnit) {
    const int64_t left = ceil_div(n_rows - row, kBF12Rows);
    UnpackedBlock weights(panels, left < kTilePanels ? left : kTilePanels, cols, end);
    multiply_bf12_rows(p, row, weights);
    panels += kTilePanels * panel_bytes(DType::kBF12, cols);
  }
  _tile_release();
}

}  // namespace
}  // namespace influence
