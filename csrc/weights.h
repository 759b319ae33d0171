// The weights of a model, by slot. Matrices are views of mapped files; the few
// numbers of norms and biases are widened to float32 at load.
#pragma once

#include <vector>

#include "spec.h"
#include "tensor.h"

namespace influence {

// Norm weights or a bias; empty: absent.
using Vector = std::vector<float>;

// x @ weight^T + bias
struct Linear {
  Matrix weight;
  Vector bias;

  bool exists() const { return weight.exists(); }
};

struct NormWeights {
  Vector weight;
  Vector bias;

  bool exists() const { return !weight.empty(); }
};

struct LayerWeights {
  NormWeights attn_norm, attn_post_norm, ffn_norm, ffn_post_norm;
  NormWeights q_norm, k_norm;
  Linear q, k, v, o;
  Linear gate, up, down;
};

struct DecoderWeights {
  Matrix embed;  // (vocab_size, hidden_size)
  NormWeights final_norm;
  Linear lm_head;  // absent: tied to embed
  std::vector<LayerWeights> layers;

  // What gives the logits.
  Linear head() const { return lm_head.exists() ? lm_head : Linear{embed, {}}; }
  // Numbers in the matrices that a token meets.
  int64_t n_per_token() const;
};

// Throws InvalidArgument, naming the slot, unless the weights have the shapes
// that the spec asks for and the spec agrees with itself. After this, kernels assume.
void check_model(const Spec& spec, const DecoderWeights& weights);

}  // namespace influence
