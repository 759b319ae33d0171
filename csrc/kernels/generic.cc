// Every kernel in plain C++: the readable definition, and the table for any CPU.
// Sums run in sixteen partial sums, number i into sum i % 16, so that the
// compiler can use whatever vectors the target has without changing a bit.
// Weights are widened to float32 as they are read; activations stay float32.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "bf12_panel.h"
#include "pack_rows.h"
#include "packed_rows.h"
#include "plain_rows.h"
#include "tables.h"

namespace influence {
namespace {

constexpr int kPartialSums = 16;

struct F16 {
  uint16_t bits;
};
struct BF16 {
  uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(int8_t x) { return x; }

inline float to_float(BF16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

// The exponent's bias grows from 15 to 127 by a multiplication, which also
// makes subnormals right; infinity and NaN, now at exponent 143, go on to 255.
// Without a branch, so that loops over it become vectors.
inline float to_float(F16 x) {
  constexpr float kRebias = 0x1p112f;
  uint32_t size = x.bits & 0x7fffu;
  uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(size << 13) * kRebias);
  uint32_t special = 0u - ((0x7bffu - size) >> 31);  // all bits above the largest finite half
  return std::bit_cast<float>((x.bits & 0x8000u) << 16 | (finite + (special & 112u << 23)));
}

inline float from_float(float x, float) { return x; }

// The nearest float16, ties to even; out of range the nearest finite one.
inline F16 from_float(float x, F16) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  float size = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (size >= 65504.0f) return {static_cast<uint16_t>(sign | 0x7bffu)};
  if (size < 0x1p-14f) {  // subnormal: a multiple of 2^-24
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p24f)))};
  }
  uint32_t half = std::bit_cast<uint32_t>(size) - (112u << 23);
  half += 0xfffu + (half >> 13 & 1);  // up to the next, unless below the middle
  return {static_cast<uint16_t>(sign | half >> 13)};
}

template <int n>
float sum_of(const float (&partial)[n]) {
  float sums[n];
  std::memcpy(sums, partial, sizeof(sums));
  for (int width = n / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

// The sum of term(0) ... term(n - 1).
template <class Term>
float sum_over(int64_t n, Term term) {
  float partial[kPartialSums] = {};
  int64_t k = 0;
  for (; k + kPartialSums <= n; k += kPartialSums) {
    for (int i = 0; i < kPartialSums; ++i) partial[i] += term(k + i);
  }
  for (int i = 0; k + i < n; ++i) partial[i] += term(k + i);
  return sum_of(partial);
}

int64_t prepared_bytes(int64_t cols) {
  return round_up(cols * static_cast<int64_t>(sizeof(float)), kAlignment);
}

void prepare(const float* x, int64_t x_stride, int64_t n_tokens, int64_t cols, void* out) {
  for (int64_t t = 0; t < n_tokens; ++t) {
    std::memcpy(static_cast<char*>(out) + t * prepared_bytes(cols), x + t * x_stride,
                static_cast<size_t>(cols) * sizeof(float));
  }
}

template <class Element>
void multiply(const void* x, int64_t n_tokens, const void* w, int64_t w_stride, int64_t n_rows,
              int64_t cols, float* out, int64_t out_stride, void*) {
  for (int64_t r = 0; r < n_rows; ++r) {
    const Element* row = static_cast<const Element*>(w) + r * w_stride;
    for (int64_t t = 0; t < n_tokens; ++t) {
      const float* token = static_cast<const float*>(x) + t * (prepared_bytes(cols) / 4);
      out[t * out_stride + r] =
          sum_over(cols, [&](int64_t k) { return token[k] * to_float(row[k]); });
    }
  }
}

template <class Element>
void store_kv(const float* key, const float* value, int64_t head_dim, int64_t slot, void* keys,
              void* values) {
  auto* k = static_cast<Element*>(keys);
  auto* v = static_cast<Element*>(values);
  for (int64_t d = 0; d < head_dim; ++d) {
    k[d * kBlockPositions + slot] = from_float(key[d], Element{});
    v[slot * head_dim + d] = from_float(value[d], Element{});
  }
}

float capped(float x, float cap) { return cap == 0 ? x : cap * std::tanh(x / cap); }

template <class Element>
const float* scales_of(const void* numbers, int64_t head_dim) {
  if (!std::is_same_v<Element, int8_t>) return nullptr;
  return q8_scales(const_cast<void*>(numbers), head_dim);
}

float weight_of(float x) { return x < kLeastExponent ? 0 : std::exp(x); }

template <class Element>
void attend_one(const AttendArgs& a, int64_t i) {
  const auto* keys = static_cast<const Element*>(a.keys);
  const auto* values = static_cast<const Element*>(a.values);
  const float* q = a.q + i * a.head_dim;
  float* out = a.out + i * a.head_dim;
  const float* key_scales = scales_of<Element>(a.keys, a.head_dim);
  const float* value_scales = scales_of<Element>(a.values, a.head_dim);
  float scores[kBlockPositions] = {};
  for (int64_t d = 0; d < a.head_dim; ++d) {
    for (int j = a.first[i]; j < a.last[i]; ++j) {
      scores[j] += q[d] * to_float(keys[d * kBlockPositions + j]);
    }
  }
  float new_max = a.max[i];
  for (int j = a.first[i]; j < a.last[i]; ++j) {
    if (key_scales != nullptr) scores[j] *= key_scales[j];
    scores[j] = capped(scores[j], a.softcap);
    new_max = scores[j] > new_max ? scores[j] : new_max;
  }
  float factor = weight_of(a.max[i] - new_max);
  float sum = a.sum[i] * factor;
  for (int64_t d = 0; d < a.head_dim; ++d) out[d] *= factor;
  for (int j = a.first[i]; j < a.last[i]; ++j) {
    float p = weight_of(scores[j] - new_max);
    sum += p;
    if (value_scales != nullptr) p *= value_scales[j];
    for (int64_t d = 0; d < a.head_dim; ++d) out[d] += p * to_float(values[j * a.head_dim + d]);
  }
  a.max[i] = new_max;
  a.sum[i] = sum;
}

template <class Element>
void attend(const AttendArgs& args) {
  for (int64_t i = 0; i < args.n_queries; ++i) {
    if (args.first[i] < args.last[i]) attend_one<Element>(args, i);
  }
}

template <class Element>
void widen_row(const void* row, float scale, int64_t n, float* out) {
  const auto* elements = static_cast<const Element*>(row);
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(elements[i]) * scale;
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

void rms_norm(const float* x, const float* weight, float offset, float eps, int64_t n, float* out) {
  float squares = sum_over(n, [&](int64_t i) { return x[i] * x[i]; });
  float scale = 1 / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * scale * (weight[i] + offset);
}

void layer_norm(const float* x, const float* weight, const float* bias, float offset, float eps,
                int64_t n, float* out) {
  float mean = sum_over(n, [&](int64_t i) { return x[i]; }) / static_cast<float>(n);
  float squares = sum_over(n, [&](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  float scale = 1 / std::sqrt(squares / static_cast<float>(n) + eps);
  for (int64_t i = 0; i < n; ++i) {
    out[i] = (x[i] - mean) * scale * (weight[i] + offset) + (bias == nullptr ? 0 : bias[i]);
  }
}

float activation_of(Activation activation, float x) {
  constexpr float kSqrtHalf = 0.70710678f;
  constexpr float kSqrt2OverPi = 0.79788456f;
  switch (activation) {
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kGelu:
      return 0.5f * x * std::erfc(-x * kSqrtHalf);
    case Activation::kGeluTanh:
      return 0.5f * x * (1 + std::tanh(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
    case Activation::kRelu:
      return x < 0 ? 0 : x;
    case Activation::kReluSquared:
      return x < 0 ? 0 : x * x;
  }
  return x;
}

void activate(Activation activation, float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    gate[i] = activation_of(activation, gate[i]) * (up == nullptr ? 1 : up[i]);
  }
}

void softcap(float* x, float cap, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = capped(x[i], cap);
}

template <class Element>
constexpr MatmulKernel matmul_kernel() {
  return {prepared_bytes, 32, prepare, no_scratch_bytes, multiply<Element>, 8};
}

// One row of a panel of q8: the weight in column `col` of a group is
// value(group, col) * factor(group) * scale(group) * base().
struct Q8Row {
  const char* panel;
  int64_t row;

  const char* group(int64_t g) const { return panel + g * group_bytes(DType::kQ8); }
  int32_t value(int64_t g, int64_t col) const {
    const auto* quads = reinterpret_cast<const uint8_t*>(group(g) + kScaleBytes);
    return quads[col / 4 * kQuadBytes + 4 * row + col % 4] - 128;
  }
  int32_t factor(int64_t) const { return 1; }
  float scale(int64_t g) const { return to_float(reinterpret_cast<const BF16*>(group(g))[row]); }
  static float base() { return 1; }
};

// The same of q4.
struct Q4Row {
  const char* panel;
  int64_t row;

  const char* group(int64_t g) const { return panel + kQ4HeadBytes + g * group_bytes(DType::kQ4); }
  int32_t value(int64_t g, int64_t col) const {
    const auto* quads = reinterpret_cast<const uint8_t*>(group(g) + kScaleBytes);
    const uint8_t both = quads[col / 8 * kQuadBytes + 4 * row + col % 4];
    const int8_t zero = reinterpret_cast<const int8_t*>(group(g) + kPanelRows)[row];
    return kQ4Values[col % 8 < 4 ? both & 15 : both >> 4] - 128 - zero;
  }
  int32_t factor(int64_t g) const { return reinterpret_cast<const uint8_t*>(group(g))[row]; }
  static float scale(int64_t) { return 1; }
  float base() const {
    const auto exponent = static_cast<uint32_t>(reinterpret_cast<const uint8_t*>(panel)[row]);
    const uint32_t bits = exponent << kMantissaBits;
    float base;
    memcpy(&base, &bits, sizeof(base));
    return base;
  }
};

// Of whole numbers: below 2^31, for a block of q4 has 256 columns.
template <int64_t kCols, class PackedRow>
int32_t block_sum(const PackedRow& row, const int8_t* x, int64_t first_group, int64_t end) {
  int32_t total = 0;
  for (int64_t g = first_group; g < end; ++g) {
    int32_t sum = 0;
    for (int64_t k = 0; k < kCols; ++k) sum += row.value(g, k) * x[g * kCols + k];
    total += sum * row.factor(g);
  }
  return total;
}

template <DType kPacked, class PackedRow>
void multiply_packed(const void* x, int64_t n_tokens, const void* w, int64_t, int64_t n_rows,
                     int64_t cols, float* out, int64_t out_stride, void*) {
  using Row = PreparedRow<kPacked>;
  const char* panels = static_cast<const char*>(w);
  for (int64_t r = 0; r < n_rows; ++r) {
    const PackedRow row = {panels + r / kPanelRows * panel_bytes(kPacked, cols), r % kPanelRows};
    for (int64_t t = 0; t < n_tokens; ++t) {
      const Row token(x, t, cols);
      float total = 0;
      for (int64_t g = 0; g < Row::n_groups(cols); g += Row::kBlockGroups) {
        const int64_t end = std::min(g + Row::kBlockGroups, Row::n_groups(cols));
        const auto sum = static_cast<float>(block_sum<Row::kCols>(row, token.values, g, end));
        total += sum * row.scale(g) * token.scales[g / Row::kBlockGroups];
      }
      out[t * out_stride + r] = total * row.base();
    }
  }
}

template <DType kPacked, class PackedRow>
constexpr MatmulKernel packed_kernel() {
  return {
      packed_prepared_bytes<kPacked>,      kPanelRows, packed_prepare<kPacked>, no_scratch_bytes,
      multiply_packed<kPacked, PackedRow>, kPanelRows};
}

// The weight in column `col` of a row of a block, unless it is an exception.
BF16 weight_of(const uint8_t* row, const BF12Codes& codes, int64_t col) {
  const int64_t i = col % 32 / 8 * 16 + col / 32 * 8 + col % 8;  // its byte
  const uint8_t both = row[kBF12Cols + i % 32];
  const int code = i < 32 ? both & 15 : both >> 4;
  const int high = (row[i] & 0x80) | codes.high[code];
  const int low = (row[i] & 0x7f) | codes.low[code];
  return {static_cast<uint16_t>(high << 8 | low)};
}

void unpack_panel(const char* data, int64_t cols, BF16* out, int64_t stride) {
  const BF12Panel panel(data, cols);
  BF12Patches patches(panel, cols);
  for (int64_t col = 0; col < cols; col += kBF12Cols) {
    for (int64_t r = 0; r < kBF12Rows; ++r) {
      for (int64_t k = 0; k < kBF12Cols; ++k) {
        out[r * stride + col + k] = weight_of(panel.block(col, r), panel.codes(r), k);
      }
    }
    patches.apply(col, 0, kBF12Rows, out + col, stride);
  }
}

void multiply_bf12(const void* x, int64_t n_tokens, const void* w, int64_t, int64_t n_rows,
                   int64_t cols, float* out, int64_t out_stride, void* scratch) {
  const char* panel = static_cast<const char*>(w);
  const int64_t stride = unpacked_stride(cols);
  for (int64_t row = 0; row < n_rows; row += kBF12Rows) {
    unpack_panel(panel, cols, static_cast<BF16*>(scratch), stride);
    multiply<BF16>(x, n_tokens, scratch, stride, std::min(kBF12Rows, n_rows - row), cols, out + row,
                   out_stride, nullptr);
    panel += panel_bytes(DType::kBF12, cols);
  }
}

constexpr MatmulKernel bf12_kernel() {
  return {prepared_bytes, kUnpackedRows, prepare, unpacked_bytes, multiply_bf12, kBF12Rows};
}

template <class Element>
constexpr AttentionKernel attention_kernel() {
  return {store_kv<Element>, attend<Element>};
}

bool supported(const CpuFeatures&) { return true; }

}  // namespace

const KernelTable generic_table = {
    .name = "generic",
    .supported = supported,
    .matmul = {matmul_kernel<float>(), matmul_kernel<F16>(), matmul_kernel<BF16>(),
               packed_kernel<DType::kQ8, Q8Row>(), packed_kernel<DType::kQ4, Q4Row>(),
               bf12_kernel()},
    .attention = {attention_kernel<float>(), attention_kernel<F16>(), {store_q8, attend<int8_t>}},
    .load_row = load_row,
    .pack_row = pack_row,
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .rope = rope,
    .activate = activate,
    .add = add,
    .scale = scale,
    .softcap = softcap,
};

}  // namespace influence
