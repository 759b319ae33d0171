// Weights as they lie in a mapped file: the model's own, or one of packed weights
// (packed.h). Nothing here owns memory.
#pragma once

#include "packed.h"

namespace influence {

// A weight matrix (rows, cols); columns are contiguous. Rows lie in equal
// groups: row r begins at element
//     (r / group_rows) * group_stride + (r % group_rows) * row_stride.
// An ordinary matrix is one group. A projection inside a fused one, such as the
// queries in GPT-NeoX's (head, 3, head_dim, hidden), is several. A packed matrix
// is one group of panels; only a panel's first row has an address.
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
    if (is_packed(dtype)) {
      return static_cast<const char*>(data) + r / panel_rows(dtype) * panel_bytes(dtype, cols);
    }
    int64_t element = (r / group_rows) * group_stride + (r % group_rows) * row_stride;
    return static_cast<const char*>(data) + element * dtype_bytes(dtype);
  }
};

}  // namespace influence
