#include "decoder.h"

#include <algorithm>
#include <utility>

#include "norms.h"

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

}  // namespace

Decoder::Decoder(Spec spec, DecoderWeights weights, const KernelTable& kernels, int n_threads,
                 KvType kv_type, int64_t kv_blocks, int64_t shared_work)
    : spec_((check_model(spec, weights), std::move(spec))),
      weights_(std::move(weights)),
      lm_head_(weights_.head()),
      kernels_(kernels),
      pool_(n_threads),
      cache_(std::make_shared<KvCache>(spec_, kv_type, kv_blocks)),
      max_tokens_(pass_tokens(spec_)),
      shared_work_(shared_work),
      weights_per_token_(weights_.n_per_token()),
      attention_(spec_, kernels_, *cache_, n_threads),
      products_(n_threads),
      scratch_(n_threads) {}

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

void Decoder::check_steps(std::span<const Step> steps) {
  sessions_.clear();
  for (const Step& step : steps) {
    auto n_tokens = static_cast<int64_t>(step.token_ids.size());
    require(!step.session->closed(), "a step's session is closed");
    require(n_tokens >= 1, "a step needs at least one token");
    require(step.n_logits >= 0 && step.n_logits <= n_tokens,
            "a step can't give more logit rows than it has tokens");
    require(step.session->position() + n_tokens <= step.session->context(),
            "a step goes beyond its session's context");
    for (int32_t token : step.token_ids) {
      if (token >= 0 && token < spec_.vocab_size) continue;
      throw InvalidArgument("token id " + std::to_string(token) + " is outside the vocabulary");
    }
    sessions_.push_back(step.session);
  }
  std::sort(sessions_.begin(), sessions_.end());
  require(std::adjacent_find(sessions_.begin(), sessions_.end()) == sessions_.end(),
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

void Decoder::make_room(int64_t n_rows) {
  n_rows = std::max<int64_t>(n_rows, n_threads());
  if (n_rows <= room_) return;
  int64_t widest = std::max({spec_.hidden_size, spec_.q_dim(), spec_.intermediate_size});
  for (std::vector<float>* hidden : {&x_, &normed_, &attn_out_, &mlp_out_}) {
    hidden->resize(n_rows * spec_.hidden_size);
  }
  for (std::vector<float>* queries : {&q_, &mixed_}) queries->resize(n_rows * spec_.q_dim());
  for (std::vector<float>* kv : {&k_, &v_}) kv->resize(n_rows * spec_.kv_dim());
  for (std::vector<float>* inner : {&gate_, &up_}) inner->resize(n_rows * spec_.intermediate_size);
  int64_t max_rows_per_task = 0;
  int64_t scratch_bytes = 0;
  for (int dtype = 0; dtype < kDTypeCount; ++dtype) {
    const MatmulKernel& kernel = kernels_.matmul[dtype];
    const int64_t n_bytes = n_rows * kernel.prepared_bytes(widest);
    prepared_[dtype].reserve(n_bytes);
    if (kernel.arrange != nullptr) arranged_[dtype].reserve(n_bytes);
    max_rows_per_task = std::max(max_rows_per_task, kernel.rows_per_task);
    scratch_bytes = std::max(scratch_bytes, kernel.scratch_bytes(widest));
  }
  for (AlignedBuffer& scratch : scratch_) scratch.reserve(scratch_bytes);
  for (std::vector<float>& product : products_) product.resize(n_rows * max_rows_per_task);
  room_ = n_rows;
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
  attention_.plan(segments_, rows_);
  const int64_t work = weights_per_token_ * static_cast<int64_t>(rows_.size());
  pool_.run(work < shared_work_ ? 1 : n_threads(), [this](Team& team) {
    embed(team);
    for (int64_t index = 0; index < spec_.n_layers; ++index) layer(team, index);
    head(team);
  });
}

// ---- Stages ----

void Decoder::embed(Team& team) {
  team.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t row) {
    kernels_.load_row(weights_.embed.dtype, weights_.embed.row(rows_[row].token_id),
                      spec_.embedding_scale, spec_.hidden_size, row_of(x_, row, spec_.hidden_size));
    attention_.turn(row);
  });
}

void Decoder::layer(Team& team, int64_t index) {
  const LayerWeights& weights = weights_.layers[index];
  attention(team, index);
  if (weights.attn_post_norm.exists()) finish_attention_branch(team, weights);
  mlp(team, weights);
  if (spec_.parallel_block || weights.ffn_post_norm.exists()) add_branches(team, weights);
}

void Decoder::attention(Team& team, int64_t index) {
  const LayerWeights& weights = weights_.layers[index];
  const auto n_rows = static_cast<int64_t>(rows_.size());
  const int64_t hidden = spec_.hidden_size;
  const Product qkv[] = {{&weights.q, q_.data()}, {&weights.k, k_.data()}, {&weights.v, v_.data()}};
  for_each_input(team, n_rows, [&](int64_t row, int64_t slot) {
    const float* input = row_of(x_, row, hidden);
    if (weights.attn_norm.exists()) {
      float* normed = row_of(normed_, slot, hidden);
      normalise(weights.attn_norm, input, hidden, normed);
      input = normed;
    }
    prepare(input, slot, qkv);
  });
  multiply(team, qkv, n_rows);
  attention_.run(team, index, weights, {q_.data(), k_.data(), v_.data(), mixed_.data()});

  const bool at_once = !spec_.parallel_block && !weights.attn_post_norm.exists();
  const Product out[] = {{&weights.o, at_once ? x_.data() : attn_out_.data(), at_once}};
  for_each_input(team, n_rows, [&](int64_t row, int64_t slot) {
    prepare(row_of(mixed_, row, spec_.q_dim()), slot, out);
  });
  multiply(team, out, n_rows);
}

// Attention's branch, where a norm comes before it is added.
void Decoder::finish_attention_branch(Team& team, const LayerWeights& weights) {
  const int64_t hidden = spec_.hidden_size;
  team.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t row) {
    float* branch = row_of(attn_out_, row, hidden);
    normalise(weights.attn_post_norm, branch, hidden, branch);
    if (spec_.parallel_block) return;
    kernels_.add(row_of(x_, row, hidden), branch, spec_.residual_scale, hidden);
  });
}

void Decoder::mlp(Team& team, const LayerWeights& weights) {
  const auto n_rows = static_cast<int64_t>(rows_.size());
  const int64_t hidden = spec_.hidden_size, inner = spec_.intermediate_size;
  const bool gated = weights.gate.exists();
  const Product gate_up[] = {{&weights.up, gated ? up_.data() : gate_.data()},
                             {&weights.gate, gate_.data()}};
  const std::span<const Product> inputs(gate_up, gated ? 2 : 1);
  for_each_input(team, n_rows, [&](int64_t row, int64_t slot) {
    const float* input = row_of(x_, row, hidden);
    float* normed = row_of(normed_, slot, hidden);
    if (weights.ffn_norm.exists()) {
      normalise(weights.ffn_norm, input, hidden, normed);
      input = normed;
    } else if (spec_.parallel_block && weights.attn_norm.exists()) {
      input = normed;  // the norm that attention and MLP share
    }
    prepare(input, slot, inputs);
  });
  multiply_together(team, inputs, n_rows, [&](int64_t first, int64_t n) {
    for (int64_t row = 0; row < n_rows; ++row) {
      const float* up = row_of(up_, row, inner) + first;
      kernels_.activate(spec_.activation, row_of(gate_, row, inner) + first, gated ? up : nullptr,
                        n);
    }
  });

  const bool at_once = !spec_.parallel_block && !weights.ffn_post_norm.exists();
  const Product down[] = {{&weights.down, at_once ? x_.data() : mlp_out_.data(), at_once}};
  for_each_input(team, n_rows, [&](int64_t row, int64_t slot) {
    prepare(row_of(gate_, row, inner), slot, down);
  });
  multiply(team, down, n_rows);
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
  for_each_input(team, n_rows, [&](int64_t i, int64_t slot) {
    float* normed = row_of(normed_, slot, hidden);
    normalise(weights_.final_norm, row_of(x_, logit_rows_[i], hidden), hidden, normed);
    prepare(normed, slot, product);
  });
  multiply_together(team, product, n_rows, [&](int64_t first, int64_t n) {
    if (spec_.logit_scale == 1 && spec_.logit_softcap == 0) return;
    for (int64_t i = 0; i < n_rows; ++i) {
      float* row = logits + i * spec_.vocab_size + first;
      kernels_.scale(row, spec_.logit_scale, n);
      if (spec_.logit_softcap != 0) kernels_.softcap(row, spec_.logit_softcap, n);
    }
  });
}

// ---- Inputs of products ----

template <class Body>
void Decoder::for_each_input(Team& team, int64_t n_rows, const Body& body) {
  if (n_rows == 1) {
    body(0, first_slot(team, n_rows));
  } else {
    team.for_each(n_rows, [&](int64_t row) { body(row, row); });
  }
}

void Decoder::normalise(const NormWeights& weights, const float* x, int64_t n, float* out) const {
  const float* bias = weights.bias.empty() ? nullptr : weights.bias.data();
  influence::normalise(spec_, kernels_, weights.weight.data(), bias, x, n, out);
}

template <class F>
void Decoder::for_each_dtype(std::span<const Product> products, const F& f) {
  bool seen[kDTypeCount] = {};
  for (const Product& product : products) {
    const Matrix& weight = product.linear->weight;
    const int dtype = static_cast<int>(weight.dtype);
    if (!std::exchange(seen[dtype], true)) f(dtype, weight.cols);
  }
}

// Converts one row of activations for every dtype among the products' weights.
void Decoder::prepare(const float* x, int64_t slot, std::span<const Product> products) {
  for_each_dtype(products, [&](int dtype, int64_t cols) {
    const MatmulKernel& kernel = kernels_.matmul[dtype];
    kernel.prepare(x, cols, 1, cols, prepared_[dtype].data() + slot * kernel.prepared_bytes(cols));
  });
}

// ---- Products ----

// Arranges the prepared rows for the kernels that want that; one row is arranged already.
void Decoder::arrange(Team& team, std::span<const Product> products, int64_t n_rows) {
  if (n_rows == 1) return;
  for_each_dtype(products, [&](int dtype, int64_t cols) {
    const MatmulKernel& kernel = kernels_.matmul[dtype];
    if (kernel.arrange == nullptr) return;
    team.for_each(ceil_div(n_rows, kArrangedTokens), [&](int64_t group) {
      const int64_t row = group * kArrangedTokens;
      const int64_t at = row * kernel.prepared_bytes(cols);
      kernel.arrange(prepared_[dtype].data() + at, std::min(kArrangedTokens, n_rows - row), cols,
                     arranged_[dtype].data() + at);
    });
  });
}

// As one loop over blocks of weight rows.
void Decoder::multiply(Team& team, std::span<const Product> products, int64_t n_rows) {
  arrange(team, products, n_rows);
  int64_t all_rows = 0;
  for (const Product& product : products) all_rows += product.linear->weight.rows;
  int64_t rows[3], n_tasks[3];
  int64_t all_tasks = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    rows[i] = rows_per_task(products[i], all_rows, team);
    n_tasks[i] = ceil_div(products[i].linear->weight.rows, rows[i]);
    all_tasks += n_tasks[i];
  }
  team.for_each(all_tasks, [&](int64_t task) {
    size_t i = 0;
    while (task >= n_tasks[i]) task -= n_tasks[i++];
    const int64_t first = task * rows[i];
    const int64_t n = std::min(rows[i], products[i].linear->weight.rows - first);
    multiply_rows(team, products[i], first, n, n_rows);
  });
}

template <class Finish>
void Decoder::multiply_together(Team& team, std::span<const Product> products, int64_t n_rows,
                                const Finish& finish) {
  arrange(team, products, n_rows);
  const int64_t all_rows = products[0].linear->weight.rows;
  int64_t rows = 0, unit = 1;
  for (const Product& product : products) {
    rows = std::max(rows, rows_per_task(product, all_rows, team));
    unit = std::max(unit, kernel_of(product).row_unit);  // powers of two
  }
  rows = round_up(rows, unit);
  team.for_each(ceil_div(all_rows, rows), [&](int64_t task) {
    const int64_t first = task * rows;
    const int64_t n = std::min(rows, all_rows - first);
    for (const Product& product : products) multiply_rows(team, product, first, n, n_rows);
    finish(first, n);
  });
}

// Weight rows in a task: a multiple of what the kernel asks for, at most what
// stays in L2, and so few that the threads finish together.
int64_t Decoder::rows_per_task(const Product& product, int64_t all_rows, const Team& team) const {
  constexpr int64_t kTasksPerThread = 8;
  const int64_t fair = ceil_div(all_rows, team.n_threads() * kTasksPerThread);
  const MatmulKernel& kernel = kernel_of(product);
  return std::min(kernel.rows_per_task, round_up(fair, kernel.row_unit));
}

void Decoder::multiply_rows(const Team& team, const Product& product, int64_t first, int64_t n,
                            int64_t n_tokens) {
  const int64_t group = product.linear->weight.group_rows;
  while (n > 0) {
    const int64_t piece = std::min(n, group - first % group);
    multiply_piece(team, product, first, piece, n_tokens);
    first += piece;
    n -= piece;
  }
}

// Rows that lie in one group.
void Decoder::multiply_piece(const Team& team, const Product& product, int64_t first, int64_t n,
                             int64_t n_tokens) {
  const Linear& linear = *product.linear;
  const Matrix& weight = linear.weight;
  const MatmulKernel& kernel = kernel_of(product);
  const bool arranged = kernel.arrange != nullptr && n_tokens > 1;
  AlignedBuffer& inputs = (arranged ? arranged_ : prepared_)[static_cast<int>(weight.dtype)];
  const char* input =
      inputs.data() + first_slot(team, n_tokens) * kernel.prepared_bytes(weight.cols);
  float* out = product.residual ? products_[team.thread()].data() : product.out + first;
  const int64_t stride = product.residual ? n : weight.rows;
  kernel.multiply(input, n_tokens, weight.row(first), weight.row_stride, n, weight.cols, out,
                  stride, scratch_[team.thread()].data());
  for (int64_t token = 0; token < n_tokens; ++token) {
    float* row = out + token * stride;
    if (!linear.bias.empty()) kernels_.add(row, linear.bias.data() + first, 1, n);
    if (product.residual) {
      kernels_.add(product.out + token * weight.rows + first, row, spec_.residual_scale, n);
    }
  }
}

}  // namespace influence
