// BF16 weights meet activations rounded to bfloat16 in `vdpbf16ps`. Include
// simd_avx512.h first; anonymous for its reason.
#pragma once

#include <string.h>

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

}  // namespace
}  // namespace influence
