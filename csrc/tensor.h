// Weights as they lie in the mapped file. Nothing here owns memory.
#pragma once

#include "base.h"

namespace influence {

enum class DType : uint8_t { kF32, kF16, kBF16 };
inline constexpr int kDTypeCount = 3;

constexpr int64_t dtype_bytes(DType dtype) { return dtype == DType::kF32 ? 4 : 2; }

// A weight matrix (rows, cols); columns are contiguous. Rows lie in equal
// groups: row r begins at element
//     (r / group_rows) * group_stride + (r % group_rows) * row_stride.
// An ordinary matrix is one group. A projection inside a fused one, such as the
// queries in GPT-NeoX's (head, 3, head_dim, hidden), is several.
struct Matrix {
  const void* data = nullptr;  // null: absent
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;    // elements
  int64_t group_rows = 0;    // rows in a group
  int64_t group_stride = 0;  // elements

  bool exists() const { return data != nullptr; }

  const void* row(int64_t r) const {
    int64_t element = (r / group_rows) * group_stride + (r % group_rows) * row_stride;
    return static_cast<const char*>(data) + element * dtype_bytes(dtype);
  }
};

}  // namespace influence
