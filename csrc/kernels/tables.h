// The tables of this build, each defined in the file of its name. Private to
// csrc/kernels: everyone else asks select_kernels.
#pragma once

#include "kernels.h"

namespace influence {

extern const KernelTable generic_table;
#if defined(__x86_64__)
extern const KernelTable avx2_table;
extern const KernelTable avx512_table;
extern const KernelTable avx512_bf16_table;
extern const KernelTable amx_table;
#elif defined(__aarch64__)
extern const KernelTable neon_table;
#endif

}  // namespace influence
