// UNROLL before a loop over registers: the loop must vanish, or the "registers"
// live in memory.
#pragma once

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
