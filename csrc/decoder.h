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

#include "kernels/kernels.h"
#include "kv_cache.h"
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
          DType kv_type, int64_t kv_blocks);

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
  // The part of a step that runs in one pass.
  struct Segment {
    Session* session;
    const int32_t* token_ids;
    int64_t n_tokens;
    int64_t n_logits;  // its last tokens that give a logit row
    int64_t position;  // of its first token
    int64_t row;       // of its first token in the activations
  };
  struct Row {  // one token of the pass
    const Segment* segment;
    int32_t token_id;
    int64_t position;
  };
  // Queries of one KV head that attention takes together.
  struct AttentionTask {
    const Segment* segment;
    int64_t first_token, n_tokens;  // within the segment
    int64_t kv_head;
    int64_t first_head, n_heads;
  };
  // A matrix product of a pass.
  struct Product {
    const Linear* linear;
    float* out;             // (n_tokens, linear->weight.rows)
    bool residual = false;  // out += residual_scale * product, instead of out = product
  };
  struct Scratch {                              // of one thread
    std::vector<float> queries, out, max, sum;  // attention's state
    std::vector<float> product;
  };

  void check_steps(std::span<const Step> steps) const;
  void reserve_blocks(std::span<const Step> steps);
  void run_passes(std::span<const Step> steps);
  void run_pass();
  void plan_attention();
  void make_room(int64_t n_tokens);

  // Stages of a pass, run by all threads together.
  void embed(Team& team);
  void layer(Team& team, int64_t index);
  void attention(Team& team, int64_t index);
  void mlp(Team& team, const LayerWeights& weights);
  void add_branches(Team& team, const LayerWeights& weights);
  void head(Team& team);

  // What one thread does for one row, task or head.
  void rope_angles(int64_t row);
  void normalise(const NormWeights& weights, const float* x, int64_t n, float* out) const;
  void normalise_heads(const NormWeights& weights, float* x, int64_t n_heads) const;
  void turn_heads(int64_t layer, int64_t row, float* x, int64_t n_heads) const;
  void finish_qkv(int64_t layer, int64_t row);
  void attend(int64_t layer, const AttentionTask& task, Scratch& scratch);
  void attend_block(int64_t layer, const AttentionTask& task, int64_t block, Scratch& scratch);
  void mlp_input(const LayerWeights& weights, int64_t row, std::span<const Product> products);
  void prepare(const float* x, int64_t row, std::span<const Product> products);
  void multiply(Team& team, std::span<const Product> products, int64_t n_tokens);
  void multiply_rows(const Product& product, int64_t first_row, int64_t n_rows, int64_t n_tokens,
                     Scratch& scratch);

  float* row_of(std::vector<float>& activations, int64_t row, int64_t cols) const {
    return activations.data() + row * cols;
  }

  const Spec spec_;
  const DecoderWeights weights_;
  const Linear lm_head_;  // the embedding where the head is tied
  const KernelTable& kernels_;
  ThreadPool pool_;
  std::shared_ptr<KvCache> cache_;
  const int64_t max_tokens_;  // of one pass; bounds the activations
  int64_t angles_per_row_ = 0;

  // The pass that runs now.
  std::vector<Segment> segments_;
  std::vector<Row> rows_;
  std::vector<int64_t> logit_rows_;  // rows of activations that give logits
  std::vector<AttentionTask> attention_tasks_;

  // Activations, (n_tokens, ...); grown to the largest pass so far.
  int64_t room_ = 0;
  std::vector<float> x_;          // hidden: the residual stream
  std::vector<float> normed_;     // hidden: a block's input after its norm
  std::vector<float> q_, k_, v_;  // q_dim, kv_dim, kv_dim
  std::vector<float> mixed_;      // q_dim: attention's output before o
  std::vector<float> attn_out_;   // hidden: where o's product is not added at once
  std::vector<float> mlp_out_;    // hidden: likewise of down's
  std::vector<float> gate_, up_;  // intermediate
  std::vector<float> cos_, sin_;  // angles_per_row: the ropes' pairs, one rope after the other
  std::array<AlignedBuffer, kDTypeCount> prepared_;  // inputs of products, by the weights' dtype
  std::vector<Scratch> scratch_;                     // by thread

  std::vector<float> logits_;
  int64_t n_logits_ = 0;
};

}  // namespace influence
