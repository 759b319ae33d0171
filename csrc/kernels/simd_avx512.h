// Sixteen floats: AVX-512 F, BW, VL and DQ under the names that the vector_*.h
// algorithms use. Anonymous, so that no object compiled with AVX-512 exports a
// function that the linker could choose for a CPU without it.
#pragma once

// GCC 12 warns of its own _mm512_undefined_ps wherever it inlines one.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#include <stdint.h>
#include <string.h>

namespace influence {
namespace {

inline constexpr int kLanes = 16;
inline constexpr int kAccumulators = 24;  // of 32 registers: 24 sums, 4 weights, 1 activation

using Vector = __m512;
using Four = __m128;
using Mask = __mmask16;

// Lanes i with first <= i < last; the bounds may lie outside the vector.
inline Mask lanes_between(int64_t first, int64_t last) {
  uint32_t below_last = last <= 0 ? 0 : last >= kLanes ? 0xffffu : (1u << last) - 1;
  uint32_t below_first = first <= 0 ? 0 : first >= kLanes ? 0xffffu : (1u << first) - 1;
  return static_cast<Mask>(below_last & ~below_first);
}

inline Vector zero() { return _mm512_setzero_ps(); }
inline Vector broadcast(float x) { return _mm512_set1_ps(x); }

// A vector of each element type; with n, only the first n elements are touched
// and the lanes above them are 0.
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline Vector load(const float* p, int64_t n) {
  return _mm512_maskz_loadu_ps(lanes_between(0, n), p);
}

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

inline __m256i load_halves(const void* p, int64_t n) {
  return _mm256_maskz_loadu_epi16(lanes_between(0, n), p);
}
inline Vector widen_bf16(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
inline Vector load(const F16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vector load(const F16* p, int64_t n) { return _mm512_cvtph_ps(load_halves(p, n)); }
inline Vector load(const BF16* p) {
  return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vector load(const BF16* p, int64_t n) { return widen_bf16(load_halves(p, n)); }

inline Vector load(const int8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Vector load(const int8_t* p, int64_t n) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes_between(0, n), p)));
}

inline void store(float* p, Vector x) { _mm512_storeu_ps(p, x); }
inline void store(float* p, Vector x, int64_t n) {
  _mm512_mask_storeu_ps(p, lanes_between(0, n), x);
}
inline void store(F16* p, Vector x, int64_t n) {  // rounds to nearest even
  __m256i halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm256_mask_storeu_epi16(p, lanes_between(0, n), halves);
}

// 32 bfloat16 are two vectors: those of even and of odd index.
inline Vector load_even(const BF16* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
inline Vector load_odd(const BF16* p) {
  __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), high));
}

inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }

// The second operand where either is NaN.
inline Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
inline Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }

inline Vector absolute(Vector x) { return _mm512_abs_ps(x); }
inline Vector with_sign_of(Vector x, Vector sign) {  // x >= 0
  return _mm512_or_ps(x, _mm512_and_ps(sign, broadcast(-0.0f)));
}
inline Vector nearest_integer(Vector x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vector times_power_of_two(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }

inline Mask less(Vector a, Vector b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
inline Vector select(Mask mask, Vector yes, Vector no) {
  return _mm512_mask_blend_ps(mask, no, yes);
}
inline float first_lane(Vector x) { return _mm512_cvtss_f32(x); }

// The sums of four vectors. Each is ((x0 + x2) + (x1 + x3)) within the quarters
// of a vector, then quarters 0 + 2 and 1 + 3, then those two.
inline Four four_sums(Vector a, Vector b, Vector c, Vector d) {
  Vector ab = _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b);
  Vector cd = _mm512_unpacklo_ps(c, d) + _mm512_unpackhi_ps(c, d);
  Vector low = _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0));
  Vector high = _mm512_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2));
  Vector quarters = low + high;
  __m256 halves = _mm512_castps512_ps256(quarters) + _mm512_extractf32x8_ps(quarters, 1);
  return _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1);
}
inline void store(float* p, Four x) { _mm_storeu_ps(p, x); }

inline float sum_of(Vector x) { return _mm_cvtss_f32(four_sums(x, x, x, x)); }
inline float max_of(Vector x) { return _mm512_reduce_max_ps(x); }

// ---- 64 bytes, and the 16 whole numbers that sums of 4 of them are ----

using Bytes = __m512i;
// Of ints, not of long longs: sums in an array of __m512i stay in memory with GCC 12.
using Ints = int __attribute__((vector_size(64)));

inline Bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline void store_bytes(uint8_t* p, Bytes x) { _mm512_storeu_si512(p, x); }
inline Bytes broadcast_four(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, sizeof(four));
  return _mm512_set1_epi32(four);
}

inline Bytes broadcast_byte(uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }

inline Bytes load_table(const uint8_t (&values)[16]) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}
inline Bytes look_up(Bytes table, Bytes indices) { return _mm512_shuffle_epi8(table, indices); }
inline Bytes low_halves(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Bytes high_halves(Bytes x) { return low_halves(_mm512_srli_epi16(x, 4)); }

inline Ints broadcast_int(int32_t x) { return (Ints)_mm512_set1_epi32(x); }
inline Vector to_floats(Ints x) { return _mm512_cvtepi32_ps((__m512i)x); }
inline Vector as_floats(Ints bits) { return _mm512_castsi512_ps((__m512i)bits); }
inline Ints load_ints(const uint8_t* p) {  // (kLanes,)
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Ints load_ints(const int8_t* p) {
  return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// dot(sum, w, x) adds to each lane the products of its 4 weights, 128 too large,
// with 4 activations; first_sum is what to begin with so that this comes right,
// where the activations of all calls add up to x_sum.
// dot_words adds to each lane the products of its two words with two of the other.
#ifdef __AVX512VNNI__
inline Ints dot_words(Ints sum, Ints a, Ints b) {
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
}
inline Ints first_sum(int32_t x_sum) { return (Ints)_mm512_set1_epi32(-128 * x_sum); }
inline Ints dot(Ints sum, Bytes w, Bytes x) {
  return (Ints)_mm512_dpbusd_epi32((__m512i)sum, w, x);
}
#else
inline Ints dot_words(Ints sum, Ints a, Ints b) {
  return sum + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
}
// |x| times w with the sign of x: pairs stay within 2 * 127 * 127 < 2^15.
inline Ints first_sum(int32_t) { return (Ints)_mm512_setzero_si512(); }
inline Ints dot(Ints sum, Bytes w, Bytes x) {
  const Bytes weights = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
  const __mmask64 negative = _mm512_movepi8_mask(x);
  const Bytes with_sign = _mm512_mask_sub_epi8(weights, negative, _mm512_setzero_si512(), weights);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(x), with_sign);
  return sum + (Ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
#endif

// ---- Blocks of bf12 (packed.h) ----

// The codes of bytes [vector * 64, ...) of a row of a block.
inline Bytes load_codes(const uint8_t* halves, int) {
  const Bytes both =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
  return low_halves(_mm512_srlv_epi64(both, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4)));
}
inline Bytes select_bits(Bytes mask, Bytes yes, Bytes no) {
  return _mm512_ternarylogic_epi64(mask, yes, no, 0xca);
}
// Pairs of bytes: of bytes 0 to 7 of each 16 to `first`, of bytes 8 to 15 to `second`.
inline void store_pairs(Bytes low, Bytes high, BF16* first, BF16* second) {
  _mm512_storeu_si512(first, _mm512_unpacklo_epi8(low, high));
  _mm512_storeu_si512(second, _mm512_unpackhi_epi8(low, high));
}

}  // namespace
}  // namespace influence
