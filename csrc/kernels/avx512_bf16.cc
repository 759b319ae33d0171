// AVX-512 BF16 (Intel since Cooper Lake, AMD since Zen 4): avx512 with one more
// instruction. vdpbf16ps multiplies 32 pairs of bfloat16 exactly and adds them to
// 16 float sums, twice the multiply-adds of an FMA, and the weights need no
// widening. So for BF16 weights the activations are rounded to bfloat16 (nearest
// even): each is off by at most 2^-9 of itself. The instruction takes
// subnormals for 0. F32 and F16 weights keep float32 activations.
#include <math.h>
#include <string.h>

// clang-format off
#include "simd_avx512.h"  // first: the others are written in its terms
#include "vector_table.h"
// clang-format on

namespace influence {
namespace {

// bfloat16 activations and weights, 32 a step. See vector_matmul.h.
struct DotBF16Format {
  using Weight = BF16;
  using Activation = BF16;
  using Operand = __m512bh;
  static constexpr int kStep = 32;
  static constexpr int kPhases = 1;

  static Operand load_weights(const Weight* w, int) { return as_bf16(_mm512_loadu_si512(w)); }
  static Operand load_some_weights(const Weight* w, int64_t n, int) {
    __mmask32 some = (1u << n) - 1;  // n < kStep
    return as_bf16(_mm512_maskz_loadu_epi16(some, w));
  }
  static Operand load_activations(const Activation* x, int) { return load_weights(x, 0); }
  static Vector accumulate(Operand x, Operand w, Vector sum) { return _mm512_dpbf16_ps(sum, x, w); }

  static void prepare_step(const float* x, int64_t n, Activation* out) {
    Vector low = load(x, n);
    Vector high = load(x + kLanes, n - kLanes);
    __m512bh both = _mm512_cvtne2ps_pbh(high, low);
    memcpy(out, &both, sizeof(both));
  }

 private:
  static Operand as_bf16(__m512i x) { return (Operand)x; }  // the same bits
};

bool supported(const CpuFeatures& cpu) { return cpu.avx512_bf16; }

}  // namespace

constinit const KernelTable avx512_bf16_table =
    vector_table<DotBF16Format>("avx512_bf16", supported);

}  // namespace influence
