// Kernels over one row: norms, activations, soft-cap, widening. A few
// operations a byte on rows that are in L1 or L2: none of them is worth a tile.
// The last vector of a row is loaded and stored under a mask, so an element's
// result does not depend on its place. Include a simd_*.h and vector_math.h first.
#pragma once

#include "unroll.h"

namespace influence {
namespace {

// The sum of term(i, n) over a row, four accumulators so that hidden_size 8192
// adds 128 numbers (512 with four lanes) to each partial sum.
template <class Term>
inline float row_sum(int64_t n, Term term) {
  Vector sum[4] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    UNROLL
    for (int v = 0; v < 4; ++v) sum[v] = sum[v] + term(i + v * kLanes, kLanes);
  }
  for (int v = 0; i < n; i += kLanes, ++v) sum[v] = sum[v] + term(i, n - i);
  return sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// out[i] = f(i, number of lanes left)
template <class F>
inline void for_each_vector(int64_t n, float* out, F f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, f(i, kLanes));
  if (i < n) store(out + i, f(i, n - i), n - i);
}

void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* out) {
  float squares = row_sum(n, [&](int64_t i, int64_t left) {
    Vector v = load(x + i, left);
    return v * v;
  });
  Vector scale = broadcast(1.0f / sqrtf(squares / static_cast<float>(n) + eps));
  for_each_vector(n, out, [&](int64_t i, int64_t left) {
    return load(x + i, left) * scale * (load(weight + i, left) + broadcast(offset));
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, float offset, float eps,
                int64_t n, float* out) {
  float total = row_sum(n, [&](int64_t i, int64_t left) { return load(x + i, left); });
  Vector mean = broadcast(total / static_cast<float>(n));
  float squares = row_sum(n, [&](int64_t i, int64_t left) {
    Vector v = select(lanes_between(0, left), load(x + i, left) - mean, zero());
    return v * v;
  });
  Vector scale = broadcast(1.0f / sqrtf(squares / static_cast<float>(n) + eps));
  for_each_vector(n, out, [&](int64_t i, int64_t left) {
    Vector w = load(weight + i, left) + broadcast(offset);
    Vector y = (load(x + i, left) - mean) * scale * w;
    return bias == nullptr ? y : y + load(bias + i, left);
  });
}

inline Vector silu(Vector x) { return x / (broadcast(1.0f) + exp(zero() - x)); }

// x * Phi(x), Phi the normal distribution's: from erfc of |x|, so that neither
// side loses digits by cancellation.
inline Vector gelu(Vector x) {
  constexpr float kSqrtHalf = 0.70710678f;
  Vector tail = broadcast(0.5f) * erfc(absolute(x) * broadcast(kSqrtHalf));
  return x * select(less(x, zero()), tail, broadcast(1.0f) - tail);
}

// 0.5 x (1 + tanh(u)) is x / (1 + exp(-2u)); u = sqrt(2 / pi) (x + 0.044715 x^3).
inline Vector gelu_tanh(Vector x) {
  constexpr float kMinusTwiceSqrt2OverPi = -1.59576912f;
  Vector inner = multiply_add(broadcast(0.044715f) * x * x, x, x);
  return x / (broadcast(1.0f) + exp(broadcast(kMinusTwiceSqrt2OverPi) * inner));
}

inline Vector relu(Vector x) { return max(zero(), x); }

inline Vector relu_squared(Vector x) { return relu(x) * relu(x); }

template <Vector (*f)(Vector)>
void activate_with(float* gate, const float* up, int64_t n) {
  for_each_vector(n, gate, [&](int64_t i, int64_t left) {
    Vector y = f(load(gate + i, left));
    return up == nullptr ? y : y * load(up + i, left);
  });
}

void activate(Activation activation, float* gate, const float* up, int64_t n) {
  switch (activation) {
    case Activation::kSilu:
      return activate_with<silu>(gate, up, n);
    case Activation::kGelu:
      return activate_with<gelu>(gate, up, n);
    case Activation::kGeluTanh:
      return activate_with<gelu_tanh>(gate, up, n);
    case Activation::kRelu:
      return activate_with<relu>(gate, up, n);
    case Activation::kReluSquared:
      return activate_with<relu_squared>(gate, up, n);
  }
}

void softcap(float* x, float cap, int64_t n) {
  for_each_vector(n, x, [&](int64_t i, int64_t left) {
    return broadcast(cap) * tanh(load(x + i, left) / broadcast(cap));
  });
}

template <class Element>
void widen_row(const void* row, float scale, int64_t n, float* out) {
  const auto* elements = static_cast<const Element*>(row);
  for_each_vector(
      n, out, [&](int64_t i, int64_t left) { return load(elements + i, left) * broadcast(scale); });
}

void load_row(DType dtype, const void* row, float scale, int64_t n, float* out) {
  switch (dtype) {
    case DType::kF32:
      return widen_row<float>(row, scale, n, out);
    case DType::kF16:
      return widen_row<F16>(row, scale, n, out);
    case DType::kBF16:
      return widen_row<BF16>(row, scale, n, out);
    default:
      break;  // packed: never asked for
  }
}

}  // namespace
}  // namespace influence
