// The table of an instruction set that has a simd_*.h: all entries are the
// vector_*.h algorithms, only the meeting of BF16 weights and activations is
// chosen. Include the simd_*.h first.
#pragma once

#include "tables.h"

// In this order: the later ones are written in the terms of the earlier.
// clang-format off
#include "vector_math.h"
#include "plain_rows.h"
#include "vector_attention.h"
#include "vector_matmul.h"
#include "vector_packed.h"
#include "vector_bf12.h"
#include "vector_rows.h"
#include "pack_rows.h"
// clang-format on

namespace influence {
namespace {

template <class BF16Format>
constexpr KernelTable vector_table(const char* name, bool (*supported)(const CpuFeatures&)) {
  return {
      .name = name,
      .supported = supported,
      .matmul = {matmul_kernel<FloatFormat<float>, 24>(), matmul_kernel<FloatFormat<F16>, 48>(),
                 matmul_kernel<BF16Format, 48>(), packed_kernel<Q8Panel>(),
                 packed_kernel<Q4Panel>(), bf12_kernel<BF16Format>()},
      .attention = {attention_kernel<float>(), attention_kernel<F16>(), {store_q8, attend<int8_t>}},
      .load_row = load_row,
      .pack_row = pack_row,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .rope = rope,
      .activate = activate,
      .add = add,
      .scale = scale,
      .softcap = softcap,
  };
}

}  // namespace
}  // namespace influence
