// A decoder-only transformer over a Spec: token ids in, logits out.
//
// The decoder knows no names, files or formats: weights arrive as views, what a
// block computes is defined by the docstring of src/influence/models/spec.py.
// It owns the activations, the logits and the thread pool; sessions own their
// places in the KV cache.
//
// The law: a logit depends on the session's tokens alone. Every number is
// computed from its own inputs in an order fixed by sizes, so how tokens are
// cut into steps, what else is in the batch, and how many threads there are
// never changes a bit.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "attention.h"
#include "kernels/kernels.h"
#include "kv_cache.h"
#include "pass.h"
#include "spec.h"
#include "thread_pool.h"
#include "weights.h"

namespace influence {

// Tokens to append to a session.
struct Step {
  Session* session;
  std::span<const int32_t> token_ids;
  int64_t n_logits;  // rows wanted, for the last tokens
};

class Decoder {
 public:
  // Throws InvalidArgument if weights and spec do not fit each other.
  Decoder(Spec spec, DecoderWeights weights, const KernelTable& kernels, int n_threads,
          KvType kv_type, int64_t kv_blocks, int64_t shared_work);

  const Spec& spec() const { return spec_; }
  const KernelTable& kernels() const { return kernels_; }
  int n_threads() const { return pool_.n_threads(); }
  const std::shared_ptr<KvCache>& cache() const { return cache_; }

  // Runs the steps as one batch. Nothing has changed if it throws
  // InvalidArgument (a bad token id, an empty step, a session twice, a full
  // context) or OutOfBlocks.
  void forward(std::span<const Step> steps);

  // Rows of the last forward, in the order of the steps: (n_logits(), vocab_size).
  float* logits() { return logits_.data(); }
  int64_t n_logits() const { return n_logits_; }

 private:
  // A matrix product of a pass.
  struct Product {
    const Linear* linear;
    float* out;             // (n_tokens, linear->weight.rows)
    bool residual = false;  // out += residual_scale * product, instead of out = product
  };
  void check_steps(std::span<const Step> steps);
  void reserve_blocks(std::span<const Step> steps);
  void run_passes(std::span<const Step> steps);
  void run_pass();
  void make_room(int64_t n_tokens);

  // Stages of a pass, run by all threads together.
  void embed(Team& team);
  void layer(Team& team, int64_t index);
  void attention(Team& team, int64_t index);
  void mlp(Team& team, const LayerWeights& weights);
  void finish_attention_branch(Team& team, const LayerWeights& weights);
  void add_branches(Team& team, const LayerWeights& weights);
  void head(Team& team);

  // body(row, slot) for every row of a product's input. A slot is the row's place
  // in normed_ and prepared_: its own number; but where there is one row, every
  // thread works it out for itself, in the slot of the thread's number, because
  // that takes less time than waiting for another's.
  template <class Body>
  void for_each_input(Team& team, int64_t n_rows, const Body& body);
  static int64_t first_slot(const Team& team, int64_t n_rows) {
    return n_rows == 1 ? team.thread() : 0;
  }
  void normalise(const NormWeights& weights, const float* x, int64_t n, float* out) const;
  void prepare(const float* x, int64_t slot, std::span<const Product> products);

  // f(dtype, cols) for every dtype among the weights of products, which share an input.
  template <class F>
  static void for_each_dtype(std::span<const Product> products, const F& f);
  void arrange(Team& team, std::span<const Product> products, int64_t n_rows);

  // All products of one input.
  void multiply(Team& team, std::span<const Product> products, int64_t n_rows);
  // The same, of products with equally many rows; finish(first, n) once outputs
  // [first, first + n) of all products and tokens are there.
  template <class Finish>
  void multiply_together(Team& team, std::span<const Product> products, int64_t n_rows,
                         const Finish& finish);
  const MatmulKernel& kernel_of(const Product& product) const {
    return kernels_.matmul[static_cast<int>(product.linear->weight.dtype)];
  }
  int64_t rows_per_task(const Product& product, int64_t all_rows, const Team& team) const;
  void multiply_rows(const Team& team, const Product& product, int64_t first, int64_t n,
                     int64_t n_tokens);
  void multiply_piece(const Team& team, const Product& product, int64_t first, int64_t n,
                      int64_t n_tokens);

  float* row_of(std::vector<float>& activations, int64_t row, int64_t cols) const {
    return activations.data() + row * cols;
  }

  const Spec spec_;
  const DecoderWeights weights_;
  const Linear lm_head_;  // the embedding where the head is tied
  const KernelTable& kernels_;
  ThreadPool pool_;
  std::shared_ptr<KvCache> cache_;
  const int64_t max_tokens_;         // of one pass; bounds the activations
  const int64_t shared_work_;        // multiplications; less is done by one thread
  const int64_t weights_per_token_;  // numbers
  Attention attention_;

  // The pass that runs now.
  std::vector<Segment> segments_;
  std::vector<Row> rows_;
  std::vector<int64_t> logit_rows_;       // rows of activations that give logits
  std::vector<const Session*> sessions_;  // of the steps

  // Activations, (n_rows, ...), of at least as many rows as there are threads;
  // grown to the largest pass so far.
  int64_t room_ = 0;
  std::vector<float> x_;          // hidden: the residual stream
  std::vector<float> normed_;     // hidden: a block's input after its norm
  std::vector<float> q_, k_, v_;  // q_dim, kv_dim, kv_dim
  std::vector<float> mixed_;      // q_dim: attention's output before o
  std::vector<float> attn_out_;   // hidden: where o's product is not added at once
  std::vector<float> mlp_out_;    // hidden: likewise of down's
  std::vector<float> gate_, up_;  // intermediate
  std::array<AlignedBuffer, kDTypeCount> prepared_;  // inputs of products, by the weights' dtype
  std::array<AlignedBuffer, kDTypeCount> arranged_;  // the same where kernels want them arranged
  std::vector<std::vector<float>> products_;         // by thread, of what is to be added
  std::vector<AlignedBuffer> scratch_;               // by thread, what a product works in

  std::vector<float> logits_;
  int64_t n_logits_ = 0;
};

}  // namespace influence
