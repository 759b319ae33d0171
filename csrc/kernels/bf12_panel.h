// A bf12 panel (packed.h) as kernels read it. Anonymous: see simd_avx512.h.
#pragma once

#include "kernels.h"

namespace influence {
namespace {

// What the codes of a row stand for, as the bits that an exponent has in the two
// bytes of a bfloat16: seven in the high one, the last as the top of the low one.
struct BF12Codes {
  uint8_t high[kBF12Codes];
  uint8_t low[kBF12Codes];
};

struct BF12CodesByBase {
  BF12Codes of[256] = {};
  constexpr BF12CodesByBase() {
    for (int base = 0; base < 256; ++base) {
      for (int code = 1; code < kBF12Codes; ++code) {
        of[base].high[code] = static_cast<uint8_t>((base + code) >> 1 & 0x7f);
        of[base].low[code] = static_cast<uint8_t>((base + code) << 7 & 0x80);
      }
    }
  }
};
constexpr BF12CodesByBase kBF12CodesByBase;

class BF12Panel {
 public:
  BF12Panel() = default;
  BF12Panel(const void* panel, int64_t cols)
      : panel_(static_cast<const char*>(panel)), blocks_(panel_ + bf12_head_bytes(cols)) {}

  const BF12Codes& codes(int64_t row) const {
    return kBF12CodesByBase.of[static_cast<uint8_t>(panel_[row])];
  }
  const BF12Exception* exceptions() const {
    return reinterpret_cast<const BF12Exception*>(panel_ + kBF12Rows);
  }
  // A row of the block that begins at column `col`: (kBF12Bytes,).
  const uint8_t* block(int64_t col, int64_t row) const {
    return reinterpret_cast<const uint8_t*>(blocks_) +
           (col / kBF12Cols * kBF12Rows + row) * kBF12Bytes;
  }

 private:
  const char* panel_ = nullptr;
  const char* blocks_ = nullptr;
};

// Puts the exceptions of a panel among its unpacked weights, block after block.
class BF12Patches {
 public:
  BF12Patches() = default;
  BF12Patches(const BF12Panel& panel, int64_t cols)
      : next_(panel.exceptions()), end_(next_ + exception_room(cols)) {}

  // Those of rows [row, row + n_rows) in the block at column `col`, whose weights are
  // at `out`, rows `stride` apart. A file that was damaged may hold any numbers: the
  // masks keep them in the block.
  template <class BF16>
  void apply(int64_t col, int64_t row, int64_t n_rows, BF16* out, int64_t stride) {
    for (; next_ != end_ && next_->col < static_cast<uint64_t>(col + kBF12Cols); ++next_) {
      const int64_t r = next_->row % kBF12Rows - row;
      if (r >= 0 && r < n_rows) out[r * stride + next_->col % kBF12Cols].bits = next_->bits;
    }
  }

 private:
  const BF12Exception* next_ = nullptr;
  const BF12Exception* end_ = nullptr;
};

// Of rows that are unpacked for many tokens: how many at once, and how far apart,
// a line more than they are long, lest all of them fall into the same sets of L1.
inline constexpr int64_t kUnpackedRows = 64;
inline int64_t unpacked_stride(int64_t cols) { return round_up(cols, kBF12Cols) + 32; }
inline int64_t unpacked_bytes(int64_t cols) { return kUnpackedRows * unpacked_stride(cols) * 2; }

}  // namespace
}  // namespace influence
