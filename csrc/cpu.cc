#include "cpu.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace influence {
namespace {

// Linux lets a process use the tiles of AMX once it has asked for them.
#if defined(__x86_64__) && defined(__linux__)
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // asm/prctl.h: ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#elif defined(__x86_64__)
bool may_use_tiles() { return false; }
#endif

}  // namespace

CpuFeatures detect_cpu() {
  CpuFeatures cpu;
#if defined(__x86_64__)
  __builtin_cpu_init();
  cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
  cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512dq");
  cpu.avx512_bf16 =
      cpu.avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  cpu.amx = cpu.avx512_bf16 && __builtin_cpu_supports("amx-bf16") &&
            __builtin_cpu_supports("amx-int8") && may_use_tiles();
#elif defined(__aarch64__)
  cpu.neon = true;  // part of the architecture
#endif
  return cpu;
}

std::vector<std::string> CpuFeatures::names() const {
  std::vector<std::string> out;
  if (avx2) out.push_back("avx2");
  if (avx512) out.push_back("avx512");
  if (avx512_bf16) out.push_back("avx512_bf16");
  if (amx) out.push_back("amx");
  if (neon) out.push_back("neon");
  return out;
}

}  // namespace influence
