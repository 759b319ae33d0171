// One block of attention: 64 positions of a KV head for the queries that share
// it. Include a simd_*.h, vector_math.h and plain_rows.h first.
//
// Bytes moved: the block's keys and values once, 64 * head_dim * 2 elements (16
// KiB as float16 at head_dim 64, 8 as q8: L1); queries and outputs stay in L1 too.
// Bound: with one query the cache that the block comes from; with a group of
// them the FMA units.
//
// Keys lie transposed, so positions are lanes and a score needs no horizontal
// sum: for each dimension, four vectors of keys times a broadcast of q, for
// kTileQueries queries at once. Values lie as rows, so dimensions are lanes: for
// each position, up to four vectors of values times a broadcast of p. Both tiles
// are 4 x 4 accumulators (2 x 4 with 16 registers). A query's own sums run over
// d = 0, 1, ... and j = first, first + 1, ... whoever its companions are.
#pragma once

#include "unroll.h"

namespace influence {
namespace {

inline constexpr int kTileQueries = kAccumulators / 6;
inline constexpr int kTileVectors = 4;
inline constexpr int kBlockVectors = kBlockPositions / kLanes;

inline void convert(const float* x, int64_t n, float* out) { memcpy(out, x, n * sizeof(float)); }

inline void convert(const float* x, int64_t n, F16* out) {
  constexpr float kLargest = 65504.0f;
  for (int64_t i = 0; i < n; i += kLanes) {
    Vector v = load(x + i, n - i);
    store(out + i, max(broadcast(-kLargest), min(broadcast(kLargest), v)), n - i);
  }
}

template <class Element>
void store_kv(const float* key, const float* value, int64_t head_dim, int64_t slot, void* keys,
              void* values) {
  Element* column = static_cast<Element*>(keys) + slot;
  for (int64_t d = 0; d < head_dim; ++d) convert(key + d, 1, column + d * kBlockPositions);
  convert(value, head_dim, static_cast<Element*>(values) + slot * head_dim);
}

// Asks for a row of the next block, at the pace at which this one's are used: the
// hardware's own prefetcher starts anew at every block.
template <class Element>
inline void bring_near(const Element* row, int64_t n) {
  for (int64_t i = 0; i < n; i += kAlignment / sizeof(Element)) __builtin_prefetch(row + i);
}

// scores[i][j] = q_i . k_j for all slots of the block, valid or not.
template <class Element, int kQueries>
void score_tile(const Element* keys, const Element* next, const float* q, int64_t head_dim,
                float (*scores)[kBlockPositions]) {
  for (int64_t j = 0; j < kBlockPositions; j += kTileVectors * kLanes) {
    Vector sum[kQueries][kTileVectors];
    UNROLL
    for (int i = 0; i < kQueries; ++i) {
      UNROLL
      for (int v = 0; v < kTileVectors; ++v) sum[i][v] = zero();
    }
    for (int64_t d = 0; d < head_dim; ++d) {
      if (next != nullptr && j == 0) bring_near(next + d * kBlockPositions, kBlockPositions);
      Vector k[kTileVectors];
      UNROLL
      for (int v = 0; v < kTileVectors; ++v)
        k[v] = load(keys + d * kBlockPositions + j + v * kLanes);
      UNROLL
      for (int i = 0; i < kQueries; ++i) {
        Vector x = broadcast(q[i * head_dim + d]);
        UNROLL
        for (int v = 0; v < kTileVectors; ++v) sum[i][v] = multiply_add(x, k[v], sum[i][v]);
      }
    }
    UNROLL
    for (int i = 0; i < kQueries; ++i) {
      UNROLL
      for (int v = 0; v < kTileVectors; ++v) store(scores[i] + j + v * kLanes, sum[i][v]);
    }
  }
}

inline Vector weight_of(Vector x) {
  const Vector least = broadcast(kLeastExponent);
  return select(less(x, least), zero(), exp(max(least, x)));  // NaN stays
}

// The scales of a block's keys or values; null where its numbers are what they are.
struct Scales {
  const float* keys = nullptr;
  const float* values = nullptr;
};

template <class Element>
Scales scales_of(const AttendArgs&) {
  return {};
}
template <>
inline Scales scales_of<int8_t>(const AttendArgs& args) {
  return {q8_scales(const_cast<void*>(args.keys), args.head_dim),
          q8_scales(const_cast<void*>(args.values), args.head_dim)};
}

// Scores of a query become weights exp(s - m') (times a scale), 0 outside its range;
// m and l are brought up to date. Returns the factor exp(m - m') of what was summed before.
inline float soften(float* scores, const Scales& scales, int64_t first, int64_t last, float cap,
                    float* max_score, float* sum) {
  Vector s[kBlockVectors];
  Vector largest = broadcast(*max_score);
  for (int v = 0; v < kBlockVectors; ++v) {
    s[v] = load(scores + v * kLanes);
    if (scales.keys != nullptr) s[v] = s[v] * load(scales.keys + v * kLanes);
    if (cap != 0) s[v] = broadcast(cap) * tanh(s[v] / broadcast(cap));
    Mask valid = lanes_between(first - v * kLanes, last - v * kLanes);
    s[v] = select(valid, s[v], broadcast(-INFINITY));
    largest = max(s[v], largest);
  }
  float new_max = max_of(largest);
  Vector total = zero();
  for (int v = 0; v < kBlockVectors; ++v) {
    Vector p = weight_of(s[v] - broadcast(new_max));
    total = total + p;
    if (scales.values != nullptr) p = p * load(scales.values + v * kLanes);
    store(scores + v * kLanes, p);
  }
  float factor = first_lane(weight_of(broadcast(*max_score - new_max)));
  *max_score = new_max;
  *sum = *sum * factor + sum_of(total);
  return factor;
}

// What the queries of a tile read and write in the block's values.
template <class Element>
struct Mix {
  const Element* values;  // (kBlockPositions, head_dim)
  const Element* next;    // those of the next block, or null
  int64_t head_dim;
  const float (*weights)[kBlockPositions];
  const float* factors;
  const int* first;
  const int* last;
  float* out;
};

// sum += weights * values over slots [begin, end). Where some queries' ranges
// end earlier or begin later, kChecked leaves those out: a weight of 0 would not
// do for a value that is NaN.
template <bool kChecked, class Element, int kQueries, int kVectors>
inline void mix_slots(const Mix<Element>& m, int64_t d, int64_t width, int begin, int end,
                      Vector (&sum)[kQueries][kVectors]) {
  for (int j = begin; j < end; ++j) {
    if (m.next != nullptr) bring_near(m.next + j * m.head_dim + d, kVectors * kLanes);
    const Element* row = m.values + j * m.head_dim + d;
    Vector v[kVectors];
    UNROLL
    for (int c = 0; c < kVectors; ++c) {
      v[c] = width >= kLanes ? load(row + c * kLanes) : load(row + c * kLanes, width);
    }
    UNROLL
    for (int i = 0; i < kQueries; ++i) {
      if (kChecked && (j < m.first[i] || j >= m.last[i])) continue;
      Vector p = broadcast(m.weights[i][j]);
      UNROLL
      for (int c = 0; c < kVectors; ++c) sum[i][c] = multiply_add(p, v[c], sum[i][c]);
    }
  }
}

// out = out * factor + weights @ values for kVectors vectors of dimensions from
// d on, of which `width` dimensions are left (it matters below kLanes).
template <class Element, int kQueries, int kVectors>
void mix_columns(const Mix<Element>& m, int64_t d, int64_t width) {
  int begin = m.first[0], common_begin = m.first[0];
  int end = m.last[0], common_end = m.last[0];
  Vector sum[kQueries][kVectors];
  UNROLL
  for (int i = 0; i < kQueries; ++i) {
    begin = m.first[i] < begin ? m.first[i] : begin;
    common_begin = m.first[i] > common_begin ? m.first[i] : common_begin;
    end = m.last[i] > end ? m.last[i] : end;
    common_end = m.last[i] < common_end ? m.last[i] : common_end;
    UNROLL
    for (int c = 0; c < kVectors; ++c) {
      sum[i][c] = load(m.out + i * m.head_dim + d + c * kLanes, width) * broadcast(m.factors[i]);
    }
  }
  if (common_begin >= common_end) common_begin = common_end = end;
  mix_slots<true>(m, d, width, begin, common_begin, sum);
  mix_slots<false>(m, d, width, common_begin, common_end, sum);
  mix_slots<true>(m, d, width, common_end, end, sum);
  UNROLL
  for (int i = 0; i < kQueries; ++i) {
    UNROLL
    for (int c = 0; c < kVectors; ++c) {
      store(m.out + i * m.head_dim + d + c * kLanes, sum[i][c], width);
    }
  }
}

template <class Element, int kQueries>
void attend_tile(const AttendArgs& args, int64_t query) {
  alignas(kAlignment) float scores[kQueries][kBlockPositions];
  float factors[kQueries];
  const float* q = args.q + query * args.head_dim;
  const int* first = args.first + query;
  const int* last = args.last + query;
  const bool is_first = query == 0;  // the others find the next block on its way
  score_tile<Element, kQueries>(static_cast<const Element*>(args.keys),
                                static_cast<const Element*>(is_first ? args.next_keys : nullptr), q,
                                args.head_dim, scores);
  const Scales scales = scales_of<Element>(args);
  for (int i = 0; i < kQueries; ++i) {
    factors[i] = soften(scores[i], scales, first[i], last[i], args.softcap, args.max + query + i,
                        args.sum + query + i);
  }
  Mix<Element> mix = {static_cast<const Element*>(args.values),
                      static_cast<const Element*>(is_first ? args.next_values : nullptr),
                      args.head_dim,
                      scores,
                      factors,
                      first,
                      last,
                      args.out + query * args.head_dim};
  constexpr int kWide = kTileVectors * kLanes;
  int64_t d = 0;
  for (; d + kWide <= args.head_dim; d += kWide) {
    mix_columns<Element, kQueries, kTileVectors>(mix, d, kWide);
  }
  for (; d < args.head_dim; d += kLanes) {
    mix_columns<Element, kQueries, 1>(mix, d, args.head_dim - d);
  }
}

template <class Element, int kQueries = kTileQueries>
void attend_tile_of(int64_t n, const AttendArgs& args, int64_t query) {
  if (n == kQueries) return attend_tile<Element, kQueries>(args, query);
  if constexpr (kQueries > 1) attend_tile_of<Element, kQueries - 1>(n, args, query);
}

// Tiles are runs of queries with something to see; the others are left alone.
template <class Element>
void attend(const AttendArgs& args) {
  int64_t query = 0;
  while (query < args.n_queries) {
    int64_t n = 0;
    while (n < kTileQueries && query + n < args.n_queries &&
           args.first[query + n] < args.last[query + n]) {
      ++n;
    }
    if (n > 0) attend_tile_of<Element>(n, args, query);
    query += n > 0 ? n : 1;
  }
}

template <class Element>
constexpr AttentionKernel attention_kernel() {
  return {store_kv<Element>, attend<Element>};
}

}  // namespace
}  // namespace influence
