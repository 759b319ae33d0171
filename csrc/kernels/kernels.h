// The arithmetic of the engine as tables of functions, one table for each
// instruction set. An entry's comment is its definition; generic.cc is the same
// in plain C++ and every other table is tested against float64 numpy.
//
// The law every entry keeps: an output number depends on its own inputs alone,
// summed in an order fixed by the row's length. How many rows, tokens or
// queries a call covers, and how its caller split them, never changes a bit.
// (So one accumulator pattern for each output, the same in every tile shape.)
//
// Kernels assume what the decoder has checked: sizes positive, pointers valid.
// No entry allocates, throws, or knows about threads. Any size is allowed, also
// sizes that no vector width divides; no entry reads or writes past its arrays.
#pragma once

#include <span>

#include "../cpu.h"
#include "../spec.h"
#include "../tensor.h"

namespace influence {

// Positions in a block of the KV cache: a multiple of every vector width, and
// with head_dim 64 to 128 a block of keys (64 x 128 x 2 bytes) stays in L1.
inline constexpr int64_t kBlockPositions = 64;

// The most queries that one `attend` call covers; bounds its scratch on the stack.
inline constexpr int64_t kMaxQueries = 16;

// How keys and values are kept: q8 is a byte for each number from -127 to 127 and
// a scale for each head of a position, its largest number / 127.
enum class KvType : uint8_t { kF32, kF16, kQ8 };
inline constexpr int kKvTypeCount = 3;

// Bytes of a block's keys, or of its values, of one head: its numbers, for q8
// followed by the scales of its slots, (kBlockPositions,) float32.
static constexpr int64_t kv_bytes(KvType type, int64_t head_dim) {
  constexpr int64_t kNumberBytes[kKvTypeCount] = {4, 2, 1};
  const int64_t scales = type == KvType::kQ8 ? sizeof(float) : 0;
  return kBlockPositions * (head_dim * kNumberBytes[static_cast<int>(type)] + scales);
}

// ln(2^-100): exponentials of less are 0 in attention.
inline constexpr float kLeastExponent = -69.3f;

// Tokens that are arranged together (see MatmulKernel::arrange).
inline constexpr int64_t kArrangedTokens = 16;

// y = x @ W^T for one dtype of W. Activations are first prepared (converted to
// what the inner loop eats: float32, bfloat16, int8 with scales), once
// for all matrices that share the input.
struct MatmulKernel {
  // Bytes of one prepared row; a multiple of kAlignment.
  int64_t (*prepared_bytes)(int64_t cols);

  // Rows of W that a task should cover, so that they stay in L2 while all
  // tokens pass over them.
  int64_t rows_per_task;

  void (*prepare)(const float* x,  // (n_tokens, cols), rows x_stride floats apart
                  int64_t x_stride, int64_t n_tokens, int64_t cols,
                  void* out);  // (n_tokens, prepared_bytes(cols)), aligned to kAlignment

  // Bytes of memory that `multiply` works in; often none.
  int64_t (*scratch_bytes)(int64_t cols);

  // out[t, r] = sum over k of x[t, k] * w[r, k]
  void (*multiply)(const void* x,  // prepared, (n_tokens, cols), and arranged if `arrange` exists
                   int64_t n_tokens,
                   const void* w,  // (n_rows, cols), rows w_stride elements apart
                   int64_t w_stride, int64_t n_rows, int64_t cols,
                   float* out,  // (n_tokens, n_rows), rows out_stride floats apart
                   int64_t out_stride,
                   void* scratch);  // (scratch_bytes(cols),), aligned to kAlignment

  // Tasks begin at multiples of this many rows: for packed weights, which have
  // no w_stride, a panel; else the fewest that keep the loads in flight.
  int64_t row_unit;

  // Where the inner loop eats several tokens at once: the prepared rows of up to
  // kArrangedTokens tokens in the order that it eats them, in as many bytes. One
  // token's row is its own arrangement. Null: all rows are eaten as prepared.
  void (*arrange)(const void* rows, int64_t n_tokens, int64_t cols, void* out) = nullptr;
};

static inline int64_t no_scratch_bytes(int64_t) { return 0; }

// One block of attention for several queries that share a KV head, with the
// online softmax of FlashAttention (Dao et al., arXiv 2205.14135). For each
// query i and each slot j in [first[i], last[i]) of the block:
//     s_j = softcap(q_i . k_j)             softcap(s) = c * tanh(s / c); c = 0: none
//     m' = max(m_i, max_j s_j);  c = exp(m_i - m')
//     l_i = l_i * c + sum_j exp(s_j - m');  o_i = o_i * c + sum_j exp(s_j - m') * v_j;  m_i = m'
// where an exponential below 2^-100 is 0: no float32 sum beside a 1 notices it, and
// subnormal numbers, which it would lead to, take a hundred cycles each.
// A query whose range is empty is left as it was. Slots outside the range may
// hold anything, NaN too, and must not matter.
struct AttendArgs {
  const float* q;     // (n_queries, head_dim), scaled by attention_scale already
  int64_t n_queries;  // 1 to kMaxQueries
  int64_t head_dim;
  const void* keys;    // (head_dim, kBlockPositions): a slot is a column    for both see
  const void* values;  // (kBlockPositions, head_dim)                        kv_bytes()
  const int* first;    // (n_queries,)
  const int* last;     // (n_queries,)
  float softcap;
  float* max;  // (n_queries,) m, -infinity at the start
  float* sum;  // (n_queries,) l, 0 at the start
  float* out;  // (n_queries, head_dim) o, 0 at the start

  // The block that will be asked for next, brought near meanwhile; null: none.
  const void* next_keys = nullptr;
  const void* next_values = nullptr;
};

// Attention over a KV cache of one type. A value out of float16's range is stored
// as the nearest finite one; a row for q8 that holds NaN or infinity gets the
// scale NaN, so that what it touches is seen.
struct AttentionKernel {
  // Put a key into column `slot` of a block of keys, a value into row `slot` of a
  // block of values, and for q8 their scales beside them.
  void (*store)(const float* key,    // (head_dim,)
                const float* value,  // (head_dim,)
                int64_t head_dim, int64_t slot, void* keys, void* values);
  void (*attend)(const AttendArgs& args);
};

struct KernelTable {
  const char* name;
  bool (*supported)(const CpuFeatures& cpu);

  MatmulKernel matmul[kDTypeCount];         // by the dtype of the weights
  AttentionKernel attention[kKvTypeCount];  // by the type of the cache

  // out = float32(row) * scale, for a row of weights that are not packed (n,)
  void (*load_row)(DType dtype, const void* row, float scale, int64_t n, float* out);

  // A row of weights into row `row` of a panel (packed.h). A group that holds NaN
  // or infinity gets the scale NaN, so that what it touches is seen.
  void (*pack_row)(DType packed, const float* weights,  // (cols,)
                   int64_t cols, int64_t row, void* panel);

  // out = x / sqrt(mean(x^2) + eps) * (weight + offset)        all (n,); out may be x
  void (*rms_norm)(const float* x, const float* weight, float offset, float eps, int64_t n,
                   float* out);

  // out = (x - mean(x)) / sqrt(var(x) + eps) * (weight + offset) + bias   bias may be null
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float offset,
                     float eps, int64_t n, float* out);

  // Turn the first rotary_dim numbers of a head: (a, b) -> (a cos - b sin, b cos + a sin)
  // for pairs (i, i + rotary_dim / 2), or (2i, 2i + 1) if interleaved.
  void (*rope)(float* head,       // (rotary_dim,) in place
               const float* cos,  // (rotary_dim / 2,)
               const float* sin,  // (rotary_dim / 2,)
               int64_t rotary_dim, bool interleaved);

  // gate = activation(gate) * up; up may be null (then gate = activation(gate))   (n,)
  void (*activate)(Activation activation, float* gate, const float* up, int64_t n);

  // x = x + scale * y   (n,)
  void (*add)(float* x, const float* y, float scale, int64_t n);

  // x = x * scale   (n,)
  void (*scale)(float* x, float scale, int64_t n);

  // x = cap * tanh(x / cap)   (n,)
  void (*softcap)(float* x, float cap, int64_t n);
};

// Every table compiled into this build, best first.
std::span<const KernelTable* const> kernel_tables();

// The best table that this CPU runs; or the one of that name. Throws
// InvalidArgument for a name that does not exist or that this CPU can't run,
// listing those that it can.
const KernelTable& select_kernels(const CpuFeatures& cpu, const std::string& name = "");

}  // namespace influence
