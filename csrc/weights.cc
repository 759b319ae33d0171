#include "weights.h"

#include <algorithm>
#include <string>

namespace influence {
namespace {

void check_shape(const Matrix& matrix, int64_t rows, int64_t cols, const char* slot) {
  require(matrix.exists() && matrix.rows == rows && matrix.cols == cols,
          std::string("the weights of slot ") + slot + " do not have the spec's shape");
}

void check_linear(const Linear& linear, int64_t rows, int64_t cols, const char* slot) {
  check_shape(linear.weight, rows, cols, slot);
  require(linear.bias.empty() || static_cast<int64_t>(linear.bias.size()) == rows,
          std::string("the bias of slot ") + slot + " does not have the spec's shape");
}

void check_norm(const NormWeights& norm, int64_t n, const char* slot) {
  auto size = static_cast<int64_t>(norm.weight.size());
  require(!norm.exists() || size == n,
          std::string("the norm of slot ") + slot + " does not have the spec's shape");
  require(norm.bias.empty() || norm.bias.size() == norm.weight.size(),
          std::string("the bias of slot ") + slot + " does not have the spec's shape");
}

void check_qk_norm(const Spec& spec, const NormWeights& norm, int64_t n_heads, const char* slot) {
  require(norm.exists() == (spec.qk_norm != QkNorm::kNone),
          std::string("slot ") + slot + " and the spec's qk_norm disagree");
  if (!norm.exists()) return;
  bool per_head = static_cast<int64_t>(norm.weight.size()) != spec.head_dim;
  check_norm(norm,
             spec.qk_norm == QkNorm::kFull || per_head ? n_heads * spec.head_dim : spec.head_dim,
             slot);
}

void check_layer(const Spec& spec, const LayerWeights& layer) {
  check_norm(layer.attn_norm, spec.hidden_size, "attn_norm");
  check_norm(layer.attn_post_norm, spec.hidden_size, "attn_post_norm");
  check_norm(layer.ffn_norm, spec.hidden_size, "ffn_norm");
  check_norm(layer.ffn_post_norm, spec.hidden_size, "ffn_post_norm");
  check_qk_norm(spec, layer.q_norm, spec.n_heads, "q_norm");
  check_qk_norm(spec, layer.k_norm, spec.n_kv_heads, "k_norm");
  check_linear(layer.q, spec.q_dim(), spec.hidden_size, "q");
  check_linear(layer.k, spec.kv_dim(), spec.hidden_size, "k");
  check_linear(layer.v, spec.kv_dim(), spec.hidden_size, "v");
  check_linear(layer.o, spec.hidden_size, spec.q_dim(), "o");
  if (layer.gate.exists()) {
    check_linear(layer.gate, spec.intermediate_size, spec.hidden_size, "gate");
  }
  check_linear(layer.up, spec.intermediate_size, spec.hidden_size, "up");
  check_linear(layer.down, spec.hidden_size, spec.intermediate_size, "down");
}

void check_ropes(const Spec& spec) {
  for (const RopeShape& rope : spec.ropes) {
    require(rope.rotary_dim > 0 && rope.rotary_dim % 2 == 0 && rope.rotary_dim <= spec.head_dim,
            "rotary_dim must be even and at most head_dim");
  }
  for (int rope : spec.layer_rope) {
    require(rope == kNoRope || (rope >= 0 && rope < static_cast<int>(spec.ropes.size())),
            "layer_rope points outside the ropes");
  }
}

}  // namespace

void check_model(const Spec& spec, const DecoderWeights& weights) {
  require(std::min({spec.vocab_size, spec.hidden_size, spec.intermediate_size, spec.n_layers,
                    spec.n_heads, spec.n_kv_heads, spec.head_dim}) >= 1,
          "every size of the spec must be at least 1");
  require(spec.n_heads % spec.n_kv_heads == 0, "n_kv_heads must divide n_heads");
  require(static_cast<int64_t>(spec.layer_rope.size()) == spec.n_layers &&
              static_cast<int64_t>(spec.layer_window.size()) == spec.n_layers &&
              static_cast<int64_t>(weights.layers.size()) == spec.n_layers,
          "the spec and the weights differ in their number of layers");
  check_ropes(spec);
  check_shape(weights.embed, spec.vocab_size, spec.hidden_size, "embed");
  check_norm(weights.final_norm, spec.hidden_size, "final_norm");
  if (weights.lm_head.exists()) {
    check_linear(weights.lm_head, spec.vocab_size, spec.hidden_size, "lm_head");
  }
  for (const LayerWeights& layer : weights.layers) check_layer(spec, layer);
}

int64_t DecoderWeights::n_per_token() const {
  const Matrix output = head().weight;
  int64_t numbers = output.rows * output.cols;
  for (const LayerWeights& layer : layers) {
    for (const Linear* linear :
         {&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down}) {
      numbers += linear->weight.rows * linear->weight.cols;
    }
  }
  return numbers;
}

}  // namespace influence
