// Weights made small at load: stored matrices into the panels of packed.h.
#pragma once

#include "kernels/kernels.h"
#include "tensor.h"

namespace influence {

// Packs `source`, whose elements are stored, into packed_bytes(packed, rows, cols)
// bytes at `out`, on `n_threads` threads.
void pack(const Matrix& source, DType packed, const KernelTable& kernels, int n_threads, void* out);

}  // namespace influence
