// Advanced SIMD, which every AArch64 CPU has: activations in
// float32. What each kernel computes, moves and is bound by stands in the
// vector_*.h files.
#include <math.h>
#include <string.h>

// clang-format off
#include "simd_neon.h"  // first: the others are written in its terms
#include "vector_table.h"
// clang-format on

namespace influence {
namespace {
bool supported(const CpuFeatures& cpu) { return cpu.neon; }
}  // namespace

constinit const KernelTable neon_table = vector_table<SplitBF16Format>("neon", supported);

}  // namespace influence
