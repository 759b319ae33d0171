// AVX-512 F, BW, VL and DQ (Intel since Skylake-X, AMD since Zen 4): activations in
// float32. What each kernel computes, moves and is bound by stands in the
// vector_*.h files.
#include <math.h>
#include <string.h>

// clang-format off
#include "simd_avx512.h"  // first: the others are written in its terms
#include "vector_table.h"
// clang-format on

namespace influence {
namespace {
bool supported(const CpuFeatures& cpu) { return cpu.avx512; }
}  // namespace

constinit const KernelTable avx512_table = vector_table<SplitBF16Format>("avx512", supported);

}  // namespace influence
