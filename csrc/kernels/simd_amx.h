// Tiles: the eight registers of AMX (Intel since Sapphire Rapids), each up to 16
// rows of 64 bytes, and how many bytes of them count. Include simd_avx512.h first;
// anonymous for its reason.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace influence {
namespace {

inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileBytes = kTileRows * kTileRowBytes;

// GCC's intrinsics that read memory into tiles don't tell the compiler so: what
// was written for them must be there before.
inline void finish_writes() { asm volatile("" ::: "memory"); }

// The sizes of all tiles: what `ldtilecfg` reads, laid out by Intel's manual.
class Tiles {
 public:
  // Of one tile.
  Tiles& size(int tile, int64_t rows, int64_t row_bytes) {
    row_bytes_[tile] = static_cast<uint16_t>(row_bytes);
    rows_[tile] = static_cast<uint8_t>(rows);
    return *this;
  }
  void use() const {
    finish_writes();
    _tile_loadconfig(this);
  }

 private:
  uint8_t palette_ = 1;
  uint8_t start_row_ = 0;
  uint8_t reserved_[14] = {};
  uint16_t row_bytes_[16] = {};
  uint8_t rows_[16] = {};
};
static_assert(sizeof(Tiles) == 64);

// Columns of a 16 x 16 block of floats as vectors.
inline void transpose(const float* block,  // (16, 16), aligned
                      Vector* columns) {   // (16,)
  Vector pairs[16], fours[16];
  for (int i = 0; i < 16; i += 2) {
    const Vector a = _mm512_load_ps(block + i * 16), b = _mm512_load_ps(block + i * 16 + 16);
    pairs[i] = _mm512_unpacklo_ps(a, b);
    pairs[i + 1] = _mm512_unpackhi_ps(a, b);
  }
  const auto low = [](Vector a, Vector b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  const auto high = [](Vector a, Vector b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  for (int i = 0; i < 16; i += 4) {  // fours[i + j]: rows i to i + 3, column j of each quarter
    fours[i] = low(pairs[i], pairs[i + 2]);
    fours[i + 1] = high(pairs[i], pairs[i + 2]);
    fours[i + 2] = low(pairs[i + 1], pairs[i + 3]);
    fours[i + 3] = high(pairs[i + 1], pairs[i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const Vector even_low = _mm512_shuffle_f32x4(fours[j], fours[j + 4], 0x88);
    const Vector even_high = _mm512_shuffle_f32x4(fours[j + 8], fours[j + 12], 0x88);
    const Vector odd_low = _mm512_shuffle_f32x4(fours[j], fours[j + 4], 0xdd);
    const Vector odd_high = _mm512_shuffle_f32x4(fours[j + 8], fours[j + 12], 0xdd);
    columns[j] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
    columns[j + 8] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
    columns[j + 4] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
    columns[j + 12] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
  }
}

}  // namespace
}  // namespace influence
