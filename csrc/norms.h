// Norms as the spec chooses them.
#pragma once

#include "kernels/kernels.h"
#include "spec.h"

namespace influence {

// out = norm(x) by `weight` and `bias` (null: none)   all (n,); out may be x
inline void normalise(const Spec& spec, const KernelTable& kernels, const float* weight,
                      const float* bias, const float* x, int64_t n, float* out) {
  if (spec.norm == Norm::kRms) {
    kernels.rms_norm(x, weight, spec.norm_offset, spec.norm_eps, n, out);
  } else {
    kernels.layer_norm(x, weight, bias, spec.norm_offset, spec.norm_eps, n, out);
  }
}

}  // namespace influence
