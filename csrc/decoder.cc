#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace influence {
namespace {

// Activations of one pass stay within this, so a long prompt costs no memory by
// its length: 512 tokens of a 1B model, 140 of a 70B one.
constexpr int64_t kActivationBytes = 64 << 20;
constexpr int64_t kMaxPassTokens = 512;
constexpr int64_t kMinPassTokens = 32;

int64_t activation_bytes_per_token(const Spec& spec) {
  int64_t widest = std::max({spec.hidden_size, spec.q_dim(), spec.intermediate_size});
  int64_t floats = 5 * spec.hidden_size + 2 * spec.q_dim() + 2 * spec.kv_dim() +
                   2 * spec.intermediate_size + widest;
  return floats * static_cast<int64_t>(sizeof(float));
}

int64_t pass_tokens(const Spec& spec) {
  return std::clamp(kActivationBytes / activation_bytes_per_token(spec), kMinPassTokens,
                    kMaxPassTokens);
}

Linear output_head(const DecoderWeights& weights) {
  return weights.lm_head.exists() ? weights.lm_head : Linear{weights.embed, {}};
}

}  // namespace

Decoder::Decoder(Spec spec, DecoderWeights weights, const KernelTable& kernels, int n_threads,
                 DType kv_type, int64_t kv_blocks)
    : spec_((check_model(spec, weights), std::move(spec))),
      weights_(std::move(weights)),
      lm_head_(output_head(weights_)),
      kernels_(kernels),
      pool_(n_threads),
      cache_(std::make_shared<KvCache>(spec_, kv_type, kv_blocks)),
      max_tokens_(pass_tokens(spec_)),
      scratch_(n_threads) {
  for (const RopeShape& rope : spec_.ropes) angles_per_row_ += rope.rotary_dim / 2;
  for (Scratch& scratch : scratch_) {
    scratch.queries.resize(kMaxQueries * spec_.head_dim);
    scratch.out.resize(kMaxQueries * spec_.head_dim);
    scratch.max.resize(kMaxQueries);
    scratch.sum.resize(kMaxQueries);
  }
}

// ---- A step: check everything, take the blocks, then compute. ----

void Decoder::forward(std::span<const Step> steps) {
  check_steps(steps);
  n_logits_ = 0;
  for (const Step& step : steps) n_logits_ += step.n_logits;
  logits_.resize(n_logits_ * spec_.vocab_size);
  reserve_blocks(steps);
  try {
    run_passes(steps);
  } catch (...) {  // no memory for activations
    for (const Step& step : steps) step.session->trim();
    throw;
  }
  for (const Step& step : steps) {
    step.session->advance(static_cast<int64_t>(step.token_ids.size()));
  }
}

void Decoder::check_steps(std::span<const Step> steps) const {
  std::vector<const Session*> sessions;
  for (const Step& step : steps) {
    auto n_tokens = static_cast<int64_t>(step.token_ids.size());
    require(!step.session->closed(), "a step's session is closed");
    require(n_tokens >= 1, "a step needs at least one token");
    require(step.n_logits >= 0 && step.n_logits <= n_tokens,
            "a step can't give more logit rows than it has tokens");
    require(step.session->position() + n_tokens <= step.session->context(),
            "a step goes beyond its session's context");
    for (int32_t token : step.token_ids) {
      require(token >= 0 && token < spec_.vocab_size,
              "token id " + std::to_string(token) + " is outside the vocabulary");
    }
    sessions.push_back(step.session);
  }
  std::sort(sessions.begin(), sessions.end());
  require(std::adjacent_find(sessions.begin(), sessions.end()) == sessions.end(),
          "a session may appear once in a batch");
}

void Decoder::reserve_blocks(std::span<const Step> steps) {
  int64_t needed = 0;
  for (const Step& step : steps) {
    needed += step.session->blocks_needed(static_cast<int64_t>(step.token_ids.size()));
  }
  if (needed > cache_->n_free()) {
    throw OutOfBlocks("the batch needs " + std::to_string(needed) +
                      " blocks of the KV cache, but " + std::to_string(cache_->n_free()) +
                      " are free");
  }
  for (const Step& step : steps) step.session->reserve(static_cast<int64_t>(step.token_ids.size()));
}

// Cuts the steps into passes of at most max_tokens_ rows.
void Decoder::run_passes(std::span<const Step> steps) {
  int64_t first_logit = 0;
  int64_t n_rows = 0;
  segments_.clear();
  auto flush = [&] {
    make_room(n_rows);
    n_logits_ = first_logit;  // where this pass's logit rows begin
    run_pass();
    first_logit += static_cast<int64_t>(logit_rows_.size());
    segments_.clear();
    n_rows = 0;
  };
  for (const Step& step : steps) {
    auto n_tokens = static_cast<int64_t>(step.token_ids.size());
    for (int64_t done = 0; done < n_tokens;) {
      int64_t take = std::min(n_tokens - done, max_tokens_ - n_rows);
      int64_t tokens_after = n_tokens - done - take;
      int64_t n_logits = std::clamp<int64_t>(step.n_logits - tokens_after, 0, take);
      segments_.push_back({step.session, step.token_ids.data() + done, take, n_logits,
                           step.session->position() + done, n_rows});
      done += take;
      n_rows += take;
      if (n_rows == max_tokens_) flush();
    }
  }
  if (n_rows > 0) flush();
  n_logits_ = first_logit;
}

void Decoder::make_room(int64_t n_tokens) {
  if (n_tokens <= room_) return;
  int64_t widest = std::max({spec_.hidden_size, spec_.q_dim(), spec_.intermediate_size});
  for (std::vector<float>* hidden : {&x_, &normed_, &attn_out_, &mlp_out_}) {
    hidden->resize(n_tokens * spec_.hidden_size);
  }
  for (std::vector<float>* queries : {&q_, &mixed_}) queries->resize(n_tokens * spec_.q_dim());
  for (std::vector<float>* kv : {&k_, &v_}) kv->resize(n_tokens * spec_.kv_dim());
  for (std::vector<float>* inner : {&gate_, &up_}) {
    inner->resize(n_tokens * spec_.intermediate_size);
  }
  for (std::vector<float>* angles : {&cos_, &sin_}) angles->resize(n_tokens * angles_per_row_);
  int64_t max_rows_per_task = 0;
  for (int dtype = 0; dtype < kDTypeCount; ++dtype) {
    const MatmulKernel& kernel = kernels_.matmul[dtype];
    prepared_[dtype].reserve(n_tokens * kernel.prepared_bytes(widest));
    max_rows_per_task = std::max(max_rows_per_task, kernel.rows_per_task);
  }
  for (Scratch& scratch : scratch_) scratch.product.resize(n_tokens * max_rows_per_task);
  room_ = n_tokens;
}

void Decoder::run_pass() {
  rows_.clear();
  logit_rows_.clear();
  for (const Segment& segment : segments_) {
    for (int64_t i = 0; i < segment.n_tokens; ++i) {
      rows_.push_back({&segment, segment.token_ids[i], segment.position + i});
      if (i >= segment.n_tokens - segment.n_logits) logit_rows_.push_back(segment.row + i);
    }
  }
  plan_attention();
  pool_.run([this](Team& team) {
    embed(team);
    for (int64_t index = 0; index < spec_.n_layers; ++index) layer(team, index);
    head(team);
  });
}

// Queries that share a KV head share its loads: as many tokens of a group of
// heads as one call of `attend` covers.
void Decoder::plan_attention() {
  const int64_t group = spec_.n_heads / spec_.n_kv_heads;
  const int64_t heads = std::min(group, kMaxQueries);
  const int64_t tokens = kMaxQueries / heads;
  attention_tasks_.clear();
  for (const Segment& segment : segments_) {
    for (int64_t token = 0; token < segment.n_tokens; token += tokens) {
      for (int64_t kv_head = 0; kv_head < spec_.n_kv_heads; ++kv_head) {
        for (int64_t head = 0; head < group; head += heads) {
          attention_tasks_.push_back({&segment, token, std::min(tokens, segment.n_tokens - token),
                                      kv_head, kv_head * group + head,
                                      std::min(heads, group - head)});
        }
      }
    }
  }
}

// ---- Stages ----

void Decoder::embed(Team& team) {
  team.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t row) {
    kernels_.load_row(weights_.embed.dtype, weights_.embed.row(rows_[row].token_id),
                      spec_.embedding_scale, spec_.hidden_size, row_of(x_, row, spec_.hidden_size));
    rope_angles(row);
  });
}

void Decoder::layer(Team& team, int64_t index) {
  const LayerWeights& weights = weights_.layers[index];
  attention(team, index);
  mlp(team, weights);
  if (spec_.parallel_block || weights.ffn_post_norm.exists()) add_branches(team, weights);
}

void Decoder::attention(Team& team, int64_t index) {
  const LayerWeights& weights = weights_.layers[index];
  const auto n_rows = static_cast<int64_t>(rows_.size());
  const Product qkv[] = {{&weights.q, q_.data()}, {&weights.k, k_.data()}, {&weights.v, v_.data()}};
  team.for_each(n_rows, [&](int64_t row) {
    const float* input = row_of(x_, row, spec_.hidden_size);
    if (weights.attn_norm.exists()) {
      float* normed = row_of(normed_, row, spec_.hidden_size);
      normalise(weights.attn_norm, input, spec_.hidden_size, normed);
      input = normed;
    }
    prepare(input, row, qkv);
  });
  multiply(team, qkv, n_rows);
  team.for_each(n_rows, [&](int64_t row) { finish_qkv(index, row); });
  team.for_each(static_cast<int64_t>(attention_tasks_.size()), [&](int64_t task) {
    attend(index, attention_tasks_[task], scratch_[team.thread()]);
  });

  const bool at_once = !spec_.parallel_block && !weights.attn_post_norm.exists();
  const Product out[] = {{&weights.o, at_once ? x_.data() : attn_out_.data(), at_once}};
  team.for_each(n_rows,
                [&](int64_t row) { prepare(row_of(mixed_, row, spec_.q_dim()), row, out); });
  multiply(team, out, n_rows);
}

void Decoder::mlp(Team& team, const LayerWeights& weights) {
  const auto n_rows = static_cast<int64_t>(rows_.size());
  const int64_t inner = spec_.intermediate_size;
  const bool gated = weights.gate.exists();
  const Product gate_up[] = {{&weights.up, gated ? up_.data() : gate_.data()},
                             {&weights.gate, gate_.data()}};
  const std::span<const Product> inputs(gate_up, gated ? 2 : 1);
  team.for_each(n_rows, [&](int64_t row) { mlp_input(weights, row, inputs); });
  multiply(team, inputs, n_rows);

  const bool at_once = !spec_.parallel_block && !weights.ffn_post_norm.exists();
  const Product down[] = {{&weights.down, at_once ? x_.data() : mlp_out_.data(), at_once}};
  team.for_each(n_rows, [&](int64_t row) {
    float* gate = row_of(gate_, row, inner);
    kernels_.activate(spec_.activation, gate, gated ? row_of(up_, row, inner) : nullptr, inner);
    prepare(gate, row, down);
  });
  multiply(team, down, n_rows);
}

// Completes attention's branch where that had to wait, and prepares the MLP's input.
void Decoder::mlp_input(const LayerWeights& weights, int64_t row,
                        std::span<const Product> products) {
  const int64_t hidden = spec_.hidden_size;
  float* x = row_of(x_, row, hidden);
  float* normed = row_of(normed_, row, hidden);
  if (weights.attn_post_norm.exists()) {
    float* branch = row_of(attn_out_, row, hidden);
    normalise(weights.attn_post_norm, branch, hidden, branch);
    if (!spec_.parallel_block) kernels_.add(x, branch, spec_.residual_scale, hidden);
  }
  const float* input = x;
  if (weights.ffn_norm.exists()) {
    normalise(weights.ffn_norm, x, hidden, normed);
    input = normed;
  } else if (spec_.parallel_block && weights.attn_norm.exists()) {
    input = normed;  // the norm that attention and MLP share
  }
  prepare(input, row, products);
}

// x = x + residual_scale * (the branches that were not added at once)
void Decoder::add_branches(Team& team, const LayerWeights& weights) {
  const int64_t hidden = spec_.hidden_size;
  team.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t row) {
    float* branch = row_of(mlp_out_, row, hidden);
    if (weights.ffn_post_norm.exists()) normalise(weights.ffn_post_norm, branch, hidden, branch);
    if (spec_.parallel_block) kernels_.add(branch, row_of(attn_out_, row, hidden), 1, hidden);
    kernels_.add(row_of(x_, row, hidden), branch, spec_.residual_scale, hidden);
  });
}

void Decoder::head(Team& team) {
  const auto n_rows = static_cast<int64_t>(logit_rows_.size());
  if (n_rows == 0) return;  // an inner chunk of a prompt
  const int64_t hidden = spec_.hidden_size;
  float* logits = logits_.data() + n_logits_ * spec_.vocab_size;
  const Product product[] = {{&lm_head_, logits}};
  team.for_each(n_rows, [&](int64_t i) {
    const float* x = row_of(x_, logit_rows_[i], hidden);
    float* normed = row_of(normed_, i, hidden);
    normalise(weights_.final_norm, x, hidden, normed);
    prepare(normed, i, product);
  });
  multiply(team, product, n_rows);
  if (spec_.logit_scale == 1 && spec_.logit_softcap == 0) return;
  team.for_each(n_rows, [&](int64_t i) {
    float* row = logits + i * spec_.vocab_size;
    kernels_.scale(row, spec_.logit_scale, spec_.vocab_size);
    if (spec_.logit_softcap != 0) kernels_.softcap(row, spec_.logit_softcap, spec_.vocab_size);
  });
}

// ---- Rows, heads, tasks ----

void Decoder::rope_angles(int64_t row) {
  float* cos = row_of(cos_, row, angles_per_row_);
  float* sin = row_of(sin_, row, angles_per_row_);
  const auto position = static_cast<float>(rows_[row].position);
  for (const RopeFrequencies& rope : rows_[row].segment->session->ropes()) {
    for (float frequency : rope.inv_freq) {
      // The angle is rounded to float32, as Hugging Face's models were trained.
      const double angle = position * frequency;
      *cos++ = static_cast<float>(std::cos(angle)) * rope.attention_factor;
      *sin++ = static_cast<float>(std::sin(angle)) * rope.attention_factor;
    }
  }
}

void Decoder::normalise(const NormWeights& weights, const float* x, int64_t n, float* out) const {
  const float* bias = weights.bias.empty() ? nullptr : weights.bias.data();
  if (spec_.norm == Norm::kRms) {
    kernels_.rms_norm(x, weights.weight.data(), spec_.norm_offset, spec_.norm_eps, n, out);
  } else {
    kernels_.layer_norm(x, weights.weight.data(), bias, spec_.norm_offset, spec_.norm_eps, n, out);
  }
}

void Decoder::normalise_heads(const NormWeights& weights, float* x, int64_t n_heads) const {
  const int64_t dim = spec_.head_dim;
  if (spec_.qk_norm == QkNorm::kNone) return;
  if (spec_.qk_norm == QkNorm::kFull) {
    normalise(weights, x, n_heads * dim, x);
    return;
  }
  const bool per_head = static_cast<int64_t>(weights.weight.size()) != dim;
  for (int64_t head = 0; head < n_heads; ++head) {
    const int64_t offset = per_head ? head * dim : 0;
    const float* weight = weights.weight.data() + offset;
    const float* bias = weights.bias.empty() ? nullptr : weights.bias.data() + offset;
    float* values = x + head * dim;
    if (spec_.norm == Norm::kRms) {
      kernels_.rms_norm(values, weight, spec_.norm_offset, spec_.norm_eps, dim, values);
    } else {
      kernels_.layer_norm(values, weight, bias, spec_.norm_offset, spec_.norm_eps, dim, values);
    }
  }
}

void Decoder::turn_heads(int64_t layer, int64_t row, float* x, int64_t n_heads) const {
  const int rope = spec_.layer_rope[layer];
  if (rope == kNoRope) return;
  int64_t offset = row * angles_per_row_;
  for (int i = 0; i < rope; ++i) offset += spec_.ropes[i].rotary_dim / 2;
  for (int64_t head = 0; head < n_heads; ++head) {
    kernels_.rope(x + head * spec_.head_dim, cos_.data() + offset, sin_.data() + offset,
                  spec_.ropes[rope].rotary_dim, spec_.ropes[rope].interleaved);
  }
}

// From projections to what attention reads: norms, rope, scale; keys and values into the cache.
void Decoder::finish_qkv(int64_t layer, int64_t row) {
  const LayerWeights& weights = weights_.layers[layer];
  float* q = row_of(q_, row, spec_.q_dim());
  float* k = row_of(k_, row, spec_.kv_dim());
  const float* v = row_of(v_, row, spec_.kv_dim());
  normalise_heads(weights.q_norm, q, spec_.n_heads);
  normalise_heads(weights.k_norm, k, spec_.n_kv_heads);
  turn_heads(layer, row, q, spec_.n_heads);
  turn_heads(layer, row, k, spec_.n_kv_heads);
  kernels_.scale(q, spec_.attention_scale, spec_.q_dim());

  const int64_t position = rows_[row].position;
  const int block = rows_[row].segment->session->block_at(position);
  const AttentionKernel& kernel = kernels_.attention[static_cast<int>(cache_->type())];
  for (int64_t head = 0; head < spec_.n_kv_heads; ++head) {
    kernel.store(k + head * spec_.head_dim, v + head * spec_.head_dim, spec_.head_dim,
                 position % kBlockPositions, cache_->keys(block, layer, head),
                 cache_->values(block, layer, head));
  }
}

void Decoder::attend(int64_t layer, const AttentionTask& task, Scratch& scratch) {
  const int64_t dim = spec_.head_dim;
  const int64_t n_queries = task.n_tokens * task.n_heads;
  const int64_t row = task.segment->row + task.first_token;
  for (int64_t i = 0; i < n_queries; ++i) {
    const float* q = row_of(q_, row + i / task.n_heads, spec_.q_dim()) +
                     (task.first_head + i % task.n_heads) * dim;
    std::copy_n(q, dim, scratch.queries.data() + i * dim);
  }
  std::fill_n(scratch.out.begin(), n_queries * dim, 0.0f);
  std::fill_n(scratch.max.begin(), n_queries, -std::numeric_limits<float>::infinity());
  std::fill_n(scratch.sum.begin(), n_queries, 0.0f);

  const int64_t first_position = task.segment->position + task.first_token;
  const int64_t last_position = first_position + task.n_tokens - 1;
  const int64_t window = spec_.layer_window[layer];
  const int64_t oldest =
      window == kNoWindow ? 0 : std::max<int64_t>(0, first_position - window + 1);
  for (int64_t block = oldest / kBlockPositions; block <= last_position / kBlockPositions;
       ++block) {
    attend_block(layer, task, block, scratch);
  }

  for (int64_t i = 0; i < n_queries; ++i) {
    float* mixed = row_of(mixed_, row + i / task.n_heads, spec_.q_dim()) +
                   (task.first_head + i % task.n_heads) * dim;
    std::copy_n(scratch.out.data() + i * dim, dim, mixed);
    kernels_.scale(mixed, 1 / scratch.sum[i], dim);
  }
}

void Decoder::attend_block(int64_t layer, const AttentionTask& task, int64_t block,
                           Scratch& scratch) {
  int first[kMaxQueries], last[kMaxQueries];
  const int64_t begin = block * kBlockPositions;
  const int64_t window = spec_.layer_window[layer];
  const int64_t n_queries = task.n_tokens * task.n_heads;
  for (int64_t i = 0; i < n_queries; ++i) {
    const int64_t position = task.segment->position + task.first_token + i / task.n_heads;
    const int64_t oldest = window == kNoWindow ? 0 : position - window + 1;
    first[i] = static_cast<int>(std::clamp<int64_t>(oldest - begin, 0, kBlockPositions));
    last[i] = static_cast<int>(std::clamp<int64_t>(position + 1 - begin, 0, kBlockPositions));
  }
  const int index = task.segment->session->block_at(begin);
  kernels_.attention[static_cast<int>(cache_->type())].attend(
      {scratch.queries.data(), n_queries, spec_.head_dim, cache_->keys(index, layer, task.kv_head),
       cache_->values(index, layer, task.kv_head), first, last, spec_.attention_softcap,
       scratch.max.data(), scratch.sum.data(), scratch.out.data()});
}

// ---- Products ----

// Converts one row of activations for every dtype among the products' weights.
void Decoder::prepare(const float* x, int64_t row, std::span<const Product> products) {
  for (size_t i = 0; i < products.size(); ++i) {
    const Matrix& weight = products[i].linear->weight;
    auto same = [&](const Product& other) { return other.linear->weight.dtype == weight.dtype; };
    if (std::any_of(products.begin(), products.begin() + i, same)) continue;
    const int dtype = static_cast<int>(weight.dtype);
    const MatmulKernel& kernel = kernels_.matmul[dtype];
    kernel.prepare(x, weight.cols, 1, weight.cols,
                   prepared_[dtype].data() + row * kernel.prepared_bytes(weight.cols));
  }
}

// All products of one input as one loop over blocks of weight rows.
void Decoder::multiply(Team& team, std::span<const Product> products, int64_t n_tokens) {
  constexpr int64_t kTasksPerThread = 8;  // enough that threads finish together
  int64_t all_rows = 0;
  for (const Product& product : products) all_rows += product.linear->weight.rows;
  const int64_t fair = ceil_div(all_rows, n_threads() * kTasksPerThread);

  struct Cut {
    int64_t rows, per_group, n_tasks;
  } cuts[3];
  int64_t n_tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    const Matrix& weight = products[i].linear->weight;
    const MatmulKernel& kernel = kernels_.matmul[static_cast<int>(weight.dtype)];
    const int64_t rows = std::min(kernel.rows_per_task, round_up(fair, kernel.row_unit));
    const int64_t per_group = ceil_div(weight.group_rows, rows);
    cuts[i] = {rows, per_group, per_group * (weight.rows / weight.group_rows)};
    n_tasks += cuts[i].n_tasks;
  }
  team.for_each(n_tasks, [&](int64_t task) {
    size_t i = 0;
    while (task >= cuts[i].n_tasks) task -= cuts[i++].n_tasks;
    const Matrix& weight = products[i].linear->weight;
    const int64_t in_group = task % cuts[i].per_group * cuts[i].rows;
    multiply_rows(products[i], task / cuts[i].per_group * weight.group_rows + in_group,
                  std::min(cuts[i].rows, weight.group_rows - in_group), n_tokens,
                  scratch_[team.thread()]);
  });
}

void Decoder::multiply_rows(const Product& product, int64_t first_row, int64_t n_rows,
                            int64_t n_tokens, Scratch& scratch) {
  const Linear& linear = *product.linear;
  const Matrix& weight = linear.weight;
  const int dtype = static_cast<int>(weight.dtype);
  float* out = product.residual ? scratch.product.data() : product.out + first_row;
  const int64_t stride = product.residual ? n_rows : weight.rows;
  kernels_.matmul[dtype].multiply(prepared_[dtype].data(), n_tokens, weight.row(first_row),
                                  weight.row_stride, n_rows, weight.cols, out, stride);
  for (int64_t token = 0; token < n_tokens; ++token) {
    float* row = out + token * stride;
    if (!linear.bias.empty()) kernels_.add(row, linear.bias.data() + first_row, 1, n_rows);
    if (product.residual) {
      kernels_.add(product.out + token * weight.rows + first_row, row, spec_.residual_scale,
                   n_rows);
    }
  }
}

}  // namespace influence
