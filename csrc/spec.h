// What a decoder-only transformer computes, as numbers. Mirrors
// src/influence/models/spec.py, whose docstring is the definition of the block.
#pragma once

#include <vector>

#include "base.h"

namespace influence {

enum class Norm : uint8_t { kRms, kLayer };
enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu, kReluSquared };
enum class QkNorm : uint8_t { kNone, kHead, kFull };

inline constexpr int kNoRope = -1;
inline constexpr int kNoWindow = 0;

struct RopeShape {
  int64_t rotary_dim = 0;    // leading dimensions of a head that turn; even
  bool interleaved = false;  // pairs are (2i, 2i + 1); else (i, i + rotary_dim / 2)
};

struct Spec {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t n_layers = 0;
  int64_t n_heads = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;

  Norm norm = Norm::kRms;
  float norm_eps = 0;
  float norm_offset = 0;
  Activation activation = Activation::kSilu;
  QkNorm qk_norm = QkNorm::kNone;
  bool parallel_block = false;
  float attention_scale = 1;
  float attention_softcap = 0;  // 0: none
  float logit_softcap = 0;      // 0: none
  float embedding_scale = 1;
  float residual_scale = 1;
  float logit_scale = 1;

  std::vector<RopeShape> ropes;
  std::vector<int> layer_rope;        // (n_layers,) index into ropes, or kNoRope
  std::vector<int64_t> layer_window;  // (n_layers,) positions seen, or kNoWindow

  int64_t q_dim() const { return n_heads * head_dim; }
  int64_t kv_dim() const { return n_kv_heads * head_dim; }
};

}  // namespace influence
