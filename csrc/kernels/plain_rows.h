// The kernels that are one multiplication and addition for each number: every
// table compiles these loops with its own flags, and the compiler's vectors
// round as scalars do (-ffp-contract=off). Bound by the cache their rows are in.
// Anonymous: see simd_avx512.h.
#pragma once

#include "kernels.h"

namespace influence {
namespace {

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
