// bfloat16 matrices into the bf12 panels of packed.h, every bit kept.
#pragma once

#include "tensor.h"

namespace influence {

// Whether no panel of `source`, which is bfloat16, has more exceptions than it has room for.
bool fits_bf12(const Matrix& source, int n_threads);

// Packs `source` into packed_bytes(kBF12, rows, cols) bytes at `out`, on `n_threads`
// threads. Throws InvalidArgument if it does not fit.
void pack_bf12(const Matrix& source, int n_threads, void* out);

}  // namespace influence
