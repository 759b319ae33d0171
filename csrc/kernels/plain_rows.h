// The kernels that are one multiplication and addition for each number: every
// table compiles these loops with its own flags, and the compiler's vectors
// round as scalars do (-ffp-contract=off). Bound by the cache their rows are in.
// Anonymous: see simd_avx512.h.
#pragma once

#include <math.h>

#include "kernels.h"

namespace influence {
namespace {

// The scales behind the numbers of a q8 block's keys or values.
inline float* q8_scales(void* numbers, int64_t head_dim) {
  return reinterpret_cast<float*>(static_cast<int8_t*>(numbers) + head_dim * kBlockPositions);
}

// numbers[i * stride] = x[i] / scale, rounded to even; returns the scale.
inline float quantise(const float* x, int64_t n, int64_t stride, int8_t* numbers) {
  constexpr float kLeast = 1e-30f;  // so that 127 / largest is finite
  float largest = 0, poison = 0;    // poison: NaN if any is NaN or infinite
  for (int64_t i = 0; i < n; ++i) {
    largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    poison += x[i] * 0.0f;
  }
  const bool is_zero = !(largest >= kLeast) || poison != poison;
  const float inverse = is_zero ? 0.0f : 127.0f / largest;
  for (int64_t i = 0; i < n; ++i) {
    numbers[i * stride] = is_zero ? 0 : static_cast<int8_t>(nearbyintf(x[i] * inverse));
  }
  return (is_zero ? 0.0f : largest / 127.0f) + poison;
}

void store_q8(const float* key, const float* value, int64_t head_dim, int64_t slot, void* keys,
              void* values) {
  q8_scales(keys, head_dim)[slot] =
      quantise(key, head_dim, kBlockPositions, static_cast<int8_t*>(keys) + slot);
  q8_scales(values, head_dim)[slot] =
      quantise(value, head_dim, 1, static_cast<int8_t*>(values) + slot * head_dim);
}

inline void turn(float* a, float* b, float cos, float sin) {
  float x = *a, y = *b;
  *a = x * cos - y * sin;
  *b = y * cos + x * sin;
}

void rope(float* head, const float* cos, const float* sin, int64_t rotary_dim, bool interleaved) {
  int64_t half = rotary_dim / 2;
  if (interleaved) {
    for (int64_t i = 0; i < half; ++i) turn(head + 2 * i, head + 2 * i + 1, cos[i], sin[i]);
  } else {
    for (int64_t i = 0; i < half; ++i) turn(head + i, head + half + i, cos[i], sin[i]);
  }
}

void add(float* x, const float* y, float scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] += scale * y[i];
}

void scale(float* x, float factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace
}  // namespace influence
