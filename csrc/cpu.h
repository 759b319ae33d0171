// What this CPU can do, asked once.
#pragma once

#include <string>
#include <vector>

namespace influence {

struct CpuFeatures {
  bool avx2 = false;         // with FMA and F16C
  bool avx512 = false;       // F, BW, VL, DQ
  bool avx512_bf16 = false;  // and VNNI, which every CPU with BF16 has
  bool amx = false;          // and AVX-512 BF16, tiles of bfloat16 and of bytes
  bool neon = false;

  std::vector<std::string> names() const;  // those that are there, for people
};

// The features of the CPU this runs on, as far as the operating system lets
// programs use them.
CpuFeatures detect_cpu();

}  // namespace influence
