// Four floats: Advanced SIMD of AArch64 under the names that the vector_*.h
// algorithms use.
#pragma once

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

namespace influence {
namespace {

inline constexpr int kLanes = 4;
inline constexpr int kAccumulators = 24;  // of 32 registers: 24 sums, 4 weights, 1 activation

using Vector = float32x4_t;
using Four = float32x4_t;
using Mask = uint32x4_t;

// Lanes i with first <= i < last; the bounds may lie outside the vector.
inline Mask lanes_between(int64_t first, int64_t last) {
  const int32_t numbers[kLanes] = {0, 1, 2, 3};
  int32x4_t lane = vld1q_s32(numbers);
  return vandq_u32(vcgeq_s32(lane, vdupq_n_s32(static_cast<int32_t>(first))),
                   vcltq_s32(lane, vdupq_n_s32(static_cast<int32_t>(last))));
}

inline Vector zero() { return vdupq_n_f32(0); }
inline Vector broadcast(float x) { return vdupq_n_f32(x); }

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

// A vector of each element type; with n, only the first n elements are touched
// and the lanes above them are 0.
inline Vector load(const float* p) { return vld1q_f32(p); }
inline Vector load(const F16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
inline Vector load(const BF16* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
}
inline Vector load(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, sizeof(four));
  int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
template <class Element>
inline Vector load(const Element* p, int64_t n) {
  Element some[kLanes] = {};
  memcpy(some, p, static_cast<size_t>(n < kLanes ? n : kLanes) * sizeof(Element));
  return load(some);
}

inline void store(float* p, Vector x) { vst1q_f32(p, x); }
inline void store(float* p, Vector x, int64_t n) {
  memcpy(p, &x, static_cast<size_t>(n < kLanes ? n : kLanes) * sizeof(float));
}
inline void store(F16* p, Vector x, int64_t n) {  // rounds to nearest even
  float16x4_t halves = vcvt_f16_f32(x);
  memcpy(p, &halves, static_cast<size_t>(n < kLanes ? n : kLanes) * sizeof(F16));
}

// 8 bfloat16 are two vectors: those of even and of odd index.
inline uint32x4_t load_pairs(const BF16* p) { return vreinterpretq_u32_u16(vld1q_u16(&p->bits)); }
inline Vector load_even(const BF16* p) {
  return vreinterpretq_f32_u32(vshlq_n_u32(load_pairs(p), 16));
}
inline Vector load_odd(const BF16* p) {
  return vreinterpretq_f32_u32(vandq_u32(load_pairs(p), vdupq_n_u32(0xffff0000u)));
}

inline Vector multiply_add(Vector a, Vector b, Vector c) { return vfmaq_f32(c, a, b); }

inline Mask less(Vector a, Vector b) { return vcltq_f32(a, b); }
inline Vector select(Mask mask, Vector yes, Vector no) { return vbslq_f32(mask, yes, no); }

// The second operand where either is NaN.
inline Vector max(Vector a, Vector b) { return select(vcgtq_f32(a, b), a, b); }
inline Vector min(Vector a, Vector b) { return select(vcltq_f32(a, b), a, b); }

inline Vector absolute(Vector x) { return vabsq_f32(x); }
inline Vector with_sign_of(Vector x, Vector sign) {  // x >= 0
  return vbslq_f32(vdupq_n_u32(0x80000000u), sign, x);
}
inline Vector nearest_integer(Vector x) { return vrndnq_f32(x); }

// x * 2^n for integers -150 <= n <= 129, in two factors because 2^n itself may
// be no float.
inline Vector times_power_of_two(Vector x, Vector n) {
  int32x4_t exponent = vcvtnq_s32_f32(n);
  int32x4_t half = vshrq_n_s32(exponent, 1);
  int32x4_t rest = vsubq_s32(exponent, half);
  int32x4_t bias = vdupq_n_s32(127);
  int32x4_t first = vshlq_n_s32(vaddq_s32(half, bias), 23);
  int32x4_t second = vshlq_n_s32(vaddq_s32(rest, bias), 23);
  return x * vreinterpretq_f32_s32(first) * vreinterpretq_f32_s32(second);
}

inline float first_lane(Vector x) { return vgetq_lane_f32(x, 0); }

// The sums of four vectors, each (x0 + x1) + (x2 + x3).
inline Four four_sums(Vector a, Vector b, Vector c, Vector d) {
  return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}

inline float sum_of(Vector x) { return first_lane(four_sums(x, x, x, x)); }
inline float max_of(Vector x) { return vmaxvq_f32(x); }

// ---- 16 bytes, and the 4 whole numbers that sums of 4 of them are ----

using Bytes = uint8x16_t;
using Ints = int32x4_t;

inline Bytes load_bytes(const uint8_t* p) { return vld1q_u8(p); }
inline void store_bytes(uint8_t* p, Bytes x) { vst1q_u8(p, x); }
inline Bytes broadcast_four(const int8_t* p) {
  uint32_t four;
  memcpy(&four, p, sizeof(four));
  return vreinterpretq_u8_u32(vdupq_n_u32(four));
}

inline Bytes broadcast_byte(uint8_t x) { return vdupq_n_u8(x); }

inline Bytes load_table(const uint8_t (&values)[16]) { return vld1q_u8(values); }
inline Bytes look_up(Bytes table, Bytes indices) { return vqtbl1q_u8(table, indices); }
inline Bytes low_halves(Bytes x) { return vandq_u8(x, vdupq_n_u8(15)); }
inline Bytes high_halves(Bytes x) { return vshrq_n_u8(x, 4); }

inline Ints broadcast_int(int32_t x) { return vdupq_n_s32(x); }
inline Vector to_floats(Ints x) { return vcvtq_f32_s32(x); }
inline Vector as_floats(Ints bits) { return vreinterpretq_f32_s32(bits); }
inline Ints load_ints(const uint8_t* p) {  // (kLanes,)
  uint32_t four;
  memcpy(&four, p, sizeof(four));
  const uint16x8_t wide = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)));
  return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide)));
}
inline Ints load_ints(const int8_t* p) {
  uint32_t four;
  memcpy(&four, p, sizeof(four));
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four)));
  return vmovl_s16(vget_low_s16(wide));
}

// dot(sum, w, x) adds to each lane the products of its 4 weights, 128 too large,
// with 4 activations; first_sum is what to begin with so that this comes right,
// where the activations of all calls add up to x_sum.
// dot_words adds to each lane the products of its two words with two of the other.
inline Ints dot_words(Ints sum, Ints a, Ints b) {
  const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
  return vaddq_s32(sum,
                   vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
}
// Sums of two products stay within 2 * 127 * 127 < 2^15.
inline Ints first_sum(int32_t) { return vdupq_n_s32(0); }
inline Ints dot(Ints sum, Bytes w, Bytes x) {
  const int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128)));
  const int8x16_t activations = vreinterpretq_s8_u8(x);
  const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(activations));
  const int16x8_t high = vmull_high_s8(weights, activations);
  return vpadalq_s16(sum, vpaddq_s16(low, high));
}

// ---- Blocks of bf12 (packed.h) ----

// The codes of bytes [vector * 16, ...) of a row of a block.
inline Bytes load_codes(const uint8_t* halves, int vector) {
  const Bytes both = load_bytes(halves + vector % 2 * 16);
  return vector < 2 ? low_halves(both) : high_halves(both);
}
inline Bytes select_bits(Bytes mask, Bytes yes, Bytes no) { return vbslq_u8(mask, yes, no); }
// Pairs of bytes: of bytes 0 to 7 to `first`, of bytes 8 to 15 to `second`.
inline void store_pairs(Bytes low, Bytes high, BF16* first, BF16* second) {
  store_bytes(reinterpret_cast<uint8_t*>(first), vzip1q_u8(low, high));
  store_bytes(reinterpret_cast<uint8_t*>(second), vzip2q_u8(low, high));
}

}  // namespace
}  // namespace influence
