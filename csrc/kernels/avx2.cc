// AVX2, FMA and F16C (Intel since Haswell, AMD since Excavator): activations in
// float32. What each kernel computes, moves and is bound by stands in the
// vector_*.h files.
#include <math.h>
#include <string.h>

// clang-format off
#include "simd_avx2.h"  // first: the others are written in its terms
#include "vector_table.h"
// clang-format on

namespace influence {
namespace {
bool supported(const CpuFeatures& cpu) { return cpu.avx2; }
}  // namespace

constinit const KernelTable avx2_table = vector_table<SplitBF16Format>("avx2", supported);

}  // namespace influence
