// Eight floats: AVX2, FMA and F16C under the names that the vector_*.h
// algorithms use. Anonymous, so that no object compiled with AVX2 exports a
// function that the linker could choose for a CPU without it.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

namespace influence {
namespace {

inline constexpr int kLanes = 8;
inline constexpr int kAccumulators = 12;  // of 16 registers: 12 sums, 3 activations, 1 weight

using Vector = __m256;
using Four = __m128;
using Mask = __m256;

// Lanes i with first <= i < last; the bounds may lie outside the vector.
inline Mask lanes_between(int64_t first, int64_t last) {
  __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256i below_last = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(last)), lane);
  __m256i below_first = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(first)), lane);
  return _mm256_castsi256_ps(_mm256_andnot_si256(below_first, below_last));
}

inline Vector zero() { return _mm256_setzero_ps(); }
inline Vector broadcast(float x) { return _mm256_set1_ps(x); }

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// A vector of each element type; with n, only the first n elements are touched
// and the lanes above them are 0.
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline Vector load(const float* p, int64_t n) {
  return _mm256_maskload_ps(p, _mm256_castps_si256(lanes_between(0, n)));
}
inline Vector load(const F16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vector load(const BF16* p) {
  __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
inline Vector load(const int8_t* p) {
  __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
template <class Element>
inline Vector load(const Element* p, int64_t n) {
  Element some[kLanes] = {};
  memcpy(some, p, static_cast<size_t>(n < kLanes ? n : kLanes) * sizeof(Element));
  return load(some);
}

inline void store(float* p, Vector x) { _mm256_storeu_ps(p, x); }
inline void store(float* p, Vector x, int64_t n) {
  _mm256_maskstore_ps(p, _mm256_castps_si256(lanes_between(0, n)), x);
}
inline void store(F16* p, Vector x, int64_t n) {  // rounds to nearest even
  __m128i halves = _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  memcpy(p, &halves, static_cast<size_t>(n < kLanes ? n : kLanes) * sizeof(F16));
}

// 16 bfloat16 are two vectors: those of even and of odd index.
inline __m256i load_pairs(const BF16* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline Vector load_even(const BF16* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p), 16));
}
inline Vector load_odd(const BF16* p) {
  __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm256_castsi256_ps(_mm256_and_si256(load_pairs(p), high));
}

inline Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }

// The second operand where either is NaN.
inline Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
inline Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }

inline Vector absolute(Vector x) { return _mm256_andnot_ps(broadcast(-0.0f), x); }
inline Vector with_sign_of(Vector x, Vector sign) {  // x >= 0
  return _mm256_or_ps(x, _mm256_and_ps(sign, broadcast(-0.0f)));
}
inline Vector nearest_integer(Vector x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// x * 2^n for integers -150 <= n <= 129, in two factors because 2^n itself may
// be no float.
inline Vector times_power_of_two(Vector x, Vector n) {
  __m256i exponent = _mm256_cvtps_epi32(n);
  __m256i half = _mm256_srai_epi32(exponent, 1);
  __m256i rest = _mm256_sub_epi32(exponent, half);
  __m256i bias = _mm256_set1_epi32(127);
  __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  __m256i second = _mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23);
  return x * _mm256_castsi256_ps(first) * _mm256_castsi256_ps(second);
}

inline Mask less(Vector a, Vector b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
inline Vector select(Mask mask, Vector yes, Vector no) { return _mm256_blendv_ps(no, yes, mask); }
inline float first_lane(Vector x) { return _mm256_cvtss_f32(x); }

// The sums of four vectors. Each is ((x0 + x2) + (x1 + x3)) within the halves of
// a vector, then the two halves.
inline Four four_sums(Vector a, Vector b, Vector c, Vector d) {
  Vector ab = _mm256_unpacklo_ps(a, b) + _mm256_unpackhi_ps(a, b);
  Vector cd = _mm256_unpacklo_ps(c, d) + _mm256_unpackhi_ps(c, d);
  Vector low = _mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(1, 0, 1, 0));
  Vector high = _mm256_shuffle_ps(ab, cd, _MM_SHUFFLE(3, 2, 3, 2));
  Vector halves = low + high;
  return _mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1);
}
inline void store(float* p, Four x) { _mm_storeu_ps(p, x); }

inline float sum_of(Vector x) { return _mm_cvtss_f32(four_sums(x, x, x, x)); }
inline float max_of(Vector x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

// ---- 32 bytes, and the 8 whole numbers that sums of 4 of them are ----

using Bytes = __m256i;
// Of ints, not of long longs: sums in an array of __m256i stay in memory with GCC 12.
using Ints = int __attribute__((vector_size(32)));

inline Bytes load_bytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void store_bytes(uint8_t* p, Bytes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
inline Bytes broadcast_four(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, sizeof(four));
  return _mm256_set1_epi32(four);
}

inline Bytes broadcast_byte(uint8_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }

inline Bytes load_table(const uint8_t (&values)[16]) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}
inline Bytes look_up(Bytes table, Bytes indices) { return _mm256_shuffle_epi8(table, indices); }
inline Bytes low_halves(Bytes x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
inline Bytes high_halves(Bytes x) { return low_halves(_mm256_srli_epi16(x, 4)); }

inline Ints broadcast_int(int32_t x) { return (Ints)_mm256_set1_epi32(x); }
inline Vector to_floats(Ints x) { return _mm256_cvtepi32_ps((__m256i)x); }
inline Vector as_floats(Ints bits) { return _mm256_castsi256_ps((__m256i)bits); }
inline Ints load_ints(const uint8_t* p) {  // (kLanes,)
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline Ints load_ints(const int8_t* p) {
  return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

// dot(sum, w, x) adds to each lane the products of its 4 weights, 128 too large,
// with 4 activations; first_sum is what to begin with so that this comes right,
// where the activations of all calls add up to x_sum.
// dot_words adds to each lane the products of its two words with two of the other.
inline Ints dot_words(Ints sum, Ints a, Ints b) {
  return sum + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
// |x| times w with the sign of x: pairs stay within 2 * 127 * 127 < 2^15.
inline Ints first_sum(int32_t) { return (Ints)_mm256_setzero_si256(); }
inline Ints dot(Ints sum, Bytes w, Bytes x) {
  const Bytes weights = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(weights, x));
  return sum + (Ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

// ---- Blocks of bf12 (packed.h) ----

// The codes of bytes [vector * 32, ...) of a row of a block.
inline Bytes load_codes(const uint8_t* halves, int vector) {
  return vector == 0 ? low_halves(load_bytes(halves)) : high_halves(load_bytes(halves));
}
inline Bytes select_bits(Bytes mask, Bytes yes, Bytes no) {
  return _mm256_or_si256(_mm256_and_si256(mask, yes), _mm256_andnot_si256(mask, no));
}
// Pairs of bytes: of bytes 0 to 7 of each 16 to `first`, of bytes 8 to 15 to `second`.
inline void store_pairs(Bytes low, Bytes high, BF16* first, BF16* second) {
  store_bytes(reinterpret_cast<uint8_t*>(first), _mm256_unpacklo_epi8(low, high));
  store_bytes(reinterpret_cast<uint8_t*>(second), _mm256_unpackhi_epi8(low, high));
}

}  // namespace
}  // namespace influence
