// exp, tanh and erfc on whole vectors. The polynomials are minimax fits (Remez)
// to the relative error on their intervals; float rounding adds about 1e-7.
// Include a simd_*.h first.
#pragma once

namespace influence {
namespace {

// c[0] + c[1] x + ... by Horner's rule.
template <int n>
inline Vector polynomial(Vector x, const float (&c)[n]) {
  Vector sum = broadcast(c[n - 1]);
  for (int i = n - 2; i >= 0; --i) sum = multiply_add(sum, x, broadcast(c[i]));
  return sum;
}

// exp(x) = 2^n exp(r) with n the integer nearest to x / ln 2, so |r| <= ln 2 / 2;
// exp(r) = 1 + r + r^2 P(r), P to 3e-9. Right in the limits: 0 below -104 and
// infinity above 89 (both are what a float64 exp would round to); NaN stays.
inline Vector exp(Vector x) {
  constexpr float kLog2E = 1.44269504f;
  constexpr float kLn2High = 0.693145752f;  // 15 bits, so that n * kLn2High is exact
  constexpr float kLn2Low = 1.42860677e-6f;
  constexpr float kP[] = {0.49999994f, 0.1666652f, 0.041668393f, 0.008368781f, 0.0013814467f};
  x = max(broadcast(-104.0f), min(broadcast(89.0f), x));
  Vector n = nearest_integer(x * broadcast(kLog2E));
  Vector r = multiply_add(n, broadcast(-kLn2High), x);
  r = multiply_add(n, broadcast(-kLn2Low), r);
  Vector tail = multiply_add(r * r, polynomial(r, kP), r);
  return times_power_of_two(tail + broadcast(1.0f), n);
}

// Near 0 an odd polynomial (4e-9 on |x| < 0.625), so that small numbers keep
// their digits; elsewhere 1 - 2 / (exp(2|x|) + 1) with the sign of x.
inline Vector tanh(Vector x) {
  constexpr float kP[] = {-0.33333284f, 0.1333149f, -0.053743497f, 0.020650588f, -0.005717045f};
  Vector square = x * x;
  Vector small = multiply_add(x * square, polynomial(square, kP), x);
  Vector size = absolute(x);
  Vector one = broadcast(1.0f);
  Vector large = one - broadcast(2.0f) / (exp(size + size) + one);
  return select(less(size, broadcast(0.625f)), small, with_sign_of(large, x));
}

// erfc(x) = exp(-x^2) t P(t), t = 1 / (1 + 0.4 x), for x >= 0: 7e-8 in t P(t),
// and x^2 * 6e-8 from rounding the square. 0 above 10.
inline Vector erfc(Vector x) {
  constexpr float kP[] = {0.22563696f, 0.22639705f, 0.20221372f,  0.19212863f, 0.08270108f,
                          0.08373612f, 0.08765421f, -0.14208026f, 0.041612566f};
  Vector one = broadcast(1.0f);
  Vector t = one / multiply_add(broadcast(0.4f), x, one);
  return exp(zero() - x * x) * (t * polynomial(t, kP));
}

}  // namespace
}  // namespace influence
