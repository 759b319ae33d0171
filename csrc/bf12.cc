// Bound by the histogram of a row's exponents, about a cycle a weight; the rest of the
// loops are vectors to the compiler.
#include "bf12.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "thread_pool.h"

namespace influence {
namespace {

constexpr int kExponents = 256;

int exponent_of(uint16_t bits) { return bits >> 7 & 0xff; }

// How often each exponent occurs; in four parts, for an addition to memory has to wait
// for the one before it if that was to the same place.
void count_exponents(const uint16_t* row, int64_t cols, int64_t (&counts)[kExponents]) {
  uint32_t parts[4][kExponents] = {};
  int64_t k = 0;
  for (; k + 4 <= cols; k += 4) {
    for (int i = 0; i < 4; ++i) ++parts[i][exponent_of(row[k + i])];
  }
  for (; k < cols; ++k) ++parts[0][exponent_of(row[k])];
  for (int e = 0; e < kExponents; ++e) {
    counts[e] = int64_t{0} + parts[0][e] + parts[1][e] + parts[2][e] + parts[3][e];
  }
}

struct Base {
  uint8_t base;
  int64_t n_exceptions;  // weights of the row that have no code
};

// The lowest base that gives the most weights a code.
Base best_base(const uint16_t* row, int64_t cols) {
  int64_t counts[kExponents];
  count_exponents(row, cols, counts);
  constexpr int kLast = kExponents - kBF12Codes;
  int64_t covered = 0;
  for (int code = 1; code < kBF12Codes; ++code) covered += counts[code];
  int64_t most = covered;
  int best = 0;
  for (int base = 1; base <= kLast; ++base) {
    covered += counts[base + kBF12Codes - 1] - counts[base];
    if (covered > most) most = covered, best = base;
  }
  return {static_cast<uint8_t>(best), cols - counts[0] - most};
}

// One row of a block, its columns in order.
struct BlockRow {
  uint8_t rest[kBF12Cols];  // sign and mantissa
  uint8_t codes[kBF12Cols];
  bool has_exceptions = false;

  BlockRow(const uint16_t (&bits)[kBF12Cols], uint8_t base) {
    int missing = 0;
    for (int64_t k = 0; k < kBF12Cols; ++k) {
      const int exponent = bits[k] >> 7 & 0xff;
      const int code = exponent - base;
      const bool has_code = code > 0 && code < kBF12Codes;
      rest[k] = static_cast<uint8_t>((bits[k] >> 8 & 0x80) | (bits[k] & 0x7f));
      codes[k] = static_cast<uint8_t>(has_code ? code : 0);
      missing |= !has_code && exponent != 0;
    }
    has_exceptions = missing != 0;
  }

  void store(uint8_t* out) const {  // (kBF12Bytes,)
    uint8_t ordered[kBF12Cols];
    for (int i = 0; i < 4; ++i) {
      std::memcpy(out + 16 * i, rest + 8 * i, 8);
      std::memcpy(out + 16 * i + 8, rest + 32 + 8 * i, 8);
      std::memcpy(ordered + 16 * i, codes + 8 * i, 8);
      std::memcpy(ordered + 16 * i + 8, codes + 32 + 8 * i, 8);
    }
    for (int64_t i = 0; i < kBF12Cols / 2; ++i) {
      out[kBF12Cols + i] = static_cast<uint8_t>(ordered[i] | ordered[i + kBF12Cols / 2] << 4);
    }
  }
};

// Writes a panel; the rows beyond the matrix are zeros.
class PanelWriter {
 public:
  PanelWriter(const Matrix& source, int64_t first_row, char* panel)
      : cols_(source.cols),
        bases_(reinterpret_cast<uint8_t*>(panel)),
        exceptions_(reinterpret_cast<BF12Exception*>(panel + kBF12Rows)),
        blocks_(bases_ + bf12_head_bytes(cols_)) {
    std::memset(panel, 0, static_cast<size_t>(bf12_head_bytes(cols_)));
    for (int64_t r = 0; r < kBF12Rows && first_row + r < source.rows; ++r) {
      rows_[r] = static_cast<const uint16_t*>(source.row(first_row + r));
      const Base base = best_base(rows_[r], cols_);
      bases_[r] = base.base;
      n_exceptions_ += base.n_exceptions;
    }
  }

  bool fits() const { return n_exceptions_ < exception_room(cols_); }

  void write() {
    for (int64_t col = 0; col < cols_; col += kBF12Cols) {
      for (int64_t r = 0; r < kBF12Rows; ++r) write_row(r, col);
    }
    *exceptions_ = {kNoColumn, 0, 0};
  }

 private:
  void write_row(int64_t r, int64_t col) {
    uint16_t bits[kBF12Cols] = {};
    const int64_t n = std::min(kBF12Cols, cols_ - col);
    if (rows_[r] != nullptr) std::memcpy(bits, rows_[r] + col, static_cast<size_t>(n) * 2);
    const BlockRow row(bits, bases_[r]);
    row.store(blocks_);
    blocks_ += kBF12Bytes;
    if (!row.has_exceptions) return;
    for (int64_t k = 0; k < n; ++k) {
      if (row.codes[k] != 0 || exponent_of(bits[k]) == 0) continue;
      *exceptions_++ = {static_cast<uint32_t>(col + k), static_cast<uint16_t>(r), bits[k]};
    }
  }

  int64_t cols_;
  const uint16_t* rows_[kBF12Rows] = {};  // null: beyond the matrix
  uint8_t* bases_;
  BF12Exception* exceptions_;  // where the next one goes
  uint8_t* blocks_;            // where the next row of a block goes
  int64_t n_exceptions_ = 0;
};

}  // namespace

bool fits_bf12(const Matrix& source, int n_threads) {
  std::atomic<bool> fits{true};
  ThreadPool pool(n_threads);
  pool.run(n_threads, [&](Team& team) {
    team.for_each(ceil_div(source.rows, kBF12Rows), [&](int64_t panel) {
      if (!fits) return;
      int64_t n_exceptions = 0;
      for (int64_t r = panel * kBF12Rows; r < std::min(source.rows, (panel + 1) * kBF12Rows); ++r) {
        n_exceptions +=
            best_base(static_cast<const uint16_t*>(source.row(r)), source.cols).n_exceptions;
      }
      if (n_exceptions >= exception_room(source.cols)) fits = false;
    });
  });
  return fits;
}

void pack_bf12(const Matrix& source, int n_threads, void* out) {
  std::atomic<bool> fits{true};
  ThreadPool pool(n_threads);
  pool.run(n_threads, [&](Team& team) {
    team.for_each(ceil_div(source.rows, kBF12Rows), [&](int64_t panel) {
      PanelWriter writer(source, panel * kBF12Rows,
                         static_cast<char*>(out) + panel * panel_bytes(DType::kBF12, source.cols));
      writer.fits() ? writer.write() : static_cast<void>(fits = false);
    });
  });
  require(fits, "too many weights of the matrix have exponents far from the others'");
}

}  // namespace influence
