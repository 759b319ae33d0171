// AVX-512 BF16 (Intel since Cooper Lake, AMD since Zen 4): avx512 with one more
// instruction. vdpbf16ps multiplies 32 pairs of bfloat16 exactly and adds them to
// 16 float sums, twice the multiply-adds of an FMA, and the weights need no
// widening. So for BF16 weights the activations are rounded to bfloat16 (nearest
// even): each is off by at most 2^-9 of itself. The instruction takes
// subnormals for 0. F32 and F16 weights keep float32 activations.
#include <math.h>

// clang-format off
#include "simd_avx512.h"  // first: the others are written in its terms
#include "dot_bf16.h"
#include "vector_table.h"
// clang-format on

namespace influence {
namespace {

bool supported(const CpuFeatures& cpu) { return cpu.avx512_bf16; }

}  // namespace

constinit const KernelTable avx512_bf16_table =
    vector_table<DotBF16Format>("avx512_bf16", supported);

}  // namespace influence
