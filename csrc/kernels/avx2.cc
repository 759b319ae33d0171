// AVX2, FMA and F16C (Intel since Haswell, AMD since Excavator): activations in
// float32. What each kernel computes, moves and is bound by stands in the
// vector_*.h files.
#include <math.h>
#include <string.h>

#include "tables.h"

// In this order: the algorithms are written in the terms of the simd header.
// clang-format off
#include "simd_avx2.h"
#include "vector_math.h"
#include "vector_attention.h"
#include "vector_matmul.h"
#include "vector_rows.h"
#include "plain_rows.h"
// clang-format on

namespace influence {
namespace {
bool supported(const CpuFeatures& cpu) { return cpu.avx2; }
}  // namespace

const KernelTable avx2_table = {
    .name = "avx2",
    .supported = supported,
    .matmul = {matmul_kernel<FloatFormat<float>, 24>(), matmul_kernel<FloatFormat<F16>, 48>(),
               matmul_kernel<SplitBF16Format, 48>()},
    .attention = {attention_kernel<float>(), attention_kernel<F16>()},
    .load_row = load_row,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .activate = activate,
    .add = add,
    .scale = scale,
    .softcap = softcap,
};

}  // namespace influence
