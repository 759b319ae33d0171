#include "attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "norms.h"

namespace influence {
namespace {

// 512 positions: at head_dim 64 a task of 128 KB of float16, some microseconds,
// many times what handing it out and combining it take.
constexpr int64_t kSpanBlocks = 8;
constexpr int64_t kSpanPositions = kSpanBlocks * kBlockPositions;

// Spans are shared out where there would be fewer tasks than this to a thread.
constexpr int64_t kTasksPerThread = 4;

}  // namespace

Attention::Attention(const Spec& spec, const KernelTable& kernels, const KvCache& cache,
                     int n_threads)
    : spec_(spec),
      kernels_(kernels),
      cache_(cache),
      n_threads_(n_threads),
      kernel_(kernels.attention[static_cast<int>(cache.type())]) {
  for (const RopeShape& rope : spec_.ropes) angles_per_row_ += rope.rotary_dim / 2;
  queries_.resize(n_threads * kMaxQueries * spec_.head_dim);
  own_states_.resize(n_threads * 2 * kMaxQueries * (spec_.head_dim + 2));
}

// ---- Planning ----

void Attention::plan(std::span<const Segment> segments, std::span<const Row> rows) {
  const int64_t group = spec_.n_heads / spec_.n_kv_heads;
  rows_ = rows;
  cos_.resize(std::max(cos_.size(), rows.size() * angles_per_row_));
  sin_.resize(cos_.size());
  // Queries of several tokens meet each other's keys, and a norm over all heads needs them all.
  rows_are_finished_here_ =
      rows.size() == segments.size() && group <= kMaxQueries && spec_.qk_norm != QkNorm::kFull;

  tasks_.clear();
  finished_.clear();
  for (const Segment& segment : segments) plan_segment(segment, false);
  if (static_cast<int64_t>(tasks_.size()) < kTasksPerThread * n_threads_) {
    tasks_.clear();
    finished_.clear();
    for (const Segment& segment : segments) plan_segment(segment, true);
  }
}

void Attention::plan_segment(const Segment& segment, bool share_spans) {
  const int64_t group = spec_.n_heads / spec_.n_kv_heads;
  const int64_t heads = std::min(group, kMaxQueries);
  const int64_t tokens = kMaxQueries / heads;
  for (int64_t token = 0; token < segment.n_tokens; token += tokens) {
    for (int64_t kv_head = 0; kv_head < spec_.n_kv_heads; ++kv_head) {
      for (int64_t head = 0; head < group; head += heads) {
        Task task{};
        task.segment = &segment;
        task.first_token = token;
        task.n_tokens = std::min(tokens, segment.n_tokens - token);
        task.kv_head = kv_head;
        task.first_head = kv_head * group + head;
        task.n_heads = std::min(heads, group - head);
        add_set(task, share_spans);
      }
    }
  }
}

void Attention::add_set(Task task, bool share_spans) {
  const int64_t n_spans = task.last_position() / kSpanPositions + 1;
  task.set = static_cast<int64_t>(finished_.size());
  finished_.push_back(0);
  task.set_size = share_spans ? n_spans : 1;
  task.n_spans = share_spans ? 1 : n_spans;
  task.first_state = static_cast<int64_t>(tasks_.size());
  for (int64_t i = 0; i < task.set_size; ++i) {
    task.first_span = i;
    tasks_.push_back(task);
  }
  const size_t floats = tasks_.size() * kMaxQueries * (spec_.head_dim + 2);
  if (task.set_size > 1 && states_.size() < floats) states_.resize(floats);
}

Attention::State Attention::state(std::vector<float>& states, int64_t index) const {
  float* max = states.data() + index * kMaxQueries * (spec_.head_dim + 2);
  return {max, max + kMaxQueries, max + 2 * kMaxQueries};
}

// ---- Rows: norms, ropes, scale; keys and values into the cache ----

void Attention::turn(int64_t row) {
  float* cos = cos_.data() + row * angles_per_row_;
  float* sin = sin_.data() + row * angles_per_row_;
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

void Attention::normalise_heads(const NormWeights& weights, float* x, int64_t first_head,
                                int64_t n_heads) const {
  const int64_t dim = spec_.head_dim;
  const float* bias = weights.bias.empty() ? nullptr : weights.bias.data();
  if (spec_.qk_norm == QkNorm::kNone) return;
  if (spec_.qk_norm == QkNorm::kFull) {
    normalise(spec_, kernels_, weights.weight.data(), bias, x, n_heads * dim, x);
    return;
  }
  const bool per_head = static_cast<int64_t>(weights.weight.size()) != dim;
  for (int64_t head = 0; head < n_heads; ++head) {
    const int64_t offset = per_head ? (first_head + head) * dim : 0;
    normalise(spec_, kernels_, weights.weight.data() + offset, bias ? bias + offset : nullptr,
              x + head * dim, dim, x + head * dim);
  }
}

void Attention::turn_heads(int64_t layer, int64_t row, float* x, int64_t n_heads) const {
  const int rope = spec_.layer_rope[layer];
  if (rope == kNoRope) return;
  int64_t offset = row * angles_per_row_;
  for (int i = 0; i < rope; ++i) offset += spec_.ropes[i].rotary_dim / 2;
  for (int64_t head = 0; head < n_heads; ++head) {
    kernels_.rope(x + head * spec_.head_dim, cos_.data() + offset, sin_.data() + offset,
                  spec_.ropes[rope].rotary_dim, spec_.ropes[rope].interleaved);
  }
}

void Attention::finish_row(const Layer& layer, int64_t row) const {
  finish_queries(layer, row, 0, spec_.n_heads, layer.projections.q + row * spec_.q_dim());
  finish_keys(layer, row, 0, spec_.n_kv_heads);
}

void Attention::finish_queries(const Layer& layer, int64_t row, int64_t first_head, int64_t n_heads,
                               float* q) const {
  normalise_heads(layer.weights.q_norm, q, first_head, n_heads);
  turn_heads(layer.index, row, q, n_heads);
  kernels_.scale(q, spec_.attention_scale, n_heads * spec_.head_dim);
}

void Attention::finish_keys(const Layer& layer, int64_t row, int64_t first_head,
                            int64_t n_heads) const {
  float* k = layer.projections.k + row * spec_.kv_dim() + first_head * spec_.head_dim;
  normalise_heads(layer.weights.k_norm, k, first_head, n_heads);
  turn_heads(layer.index, row, k, n_heads);
  store(layer, row, first_head, n_heads);
}

void Attention::store(const Layer& layer, int64_t row, int64_t first_head, int64_t n_heads) const {
  const int64_t dim = spec_.head_dim;
  const int64_t position = rows_[row].position;
  const int block = rows_[row].segment->session->block_at(position);
  const float* k = layer.projections.k + row * spec_.kv_dim();
  const float* v = layer.projections.v + row * spec_.kv_dim();
  for (int64_t head = first_head; head < first_head + n_heads; ++head) {
    kernel_.store(k + head * dim, v + head * dim, dim, position % kBlockPositions,
                  cache_.keys(block, layer.index, head), cache_.values(block, layer.index, head));
  }
}

// ---- Tasks ----

void Attention::run(Team& team, int64_t index, const LayerWeights& weights,
                    const Projections& projections) {
  const Layer layer{index, weights, projections};
  if (!rows_are_finished_here_) {
    team.for_each(static_cast<int64_t>(rows_.size()), [&](int64_t row) { finish_row(layer, row); });
  }
  team.for_each(static_cast<int64_t>(tasks_.size()),
                [&](int64_t task) { attend(layer, tasks_[task], team.thread()); });
}

void Attention::attend(const Layer& layer, const Task& task, int thread) {
  float* queries = queries_.data() + thread * kMaxQueries * spec_.head_dim;
  gather_queries(layer, task, queries);
  const int64_t last_span = task.first_span + task.n_spans - 1;
  if (rows_are_finished_here_ && last_span == task.last_position() / kSpanPositions) {
    finish_keys(layer, task.row(), task.kv_head, 1);
  }
  const bool whole = task.set_size == 1;
  const State part = state(own_states_, 2 * thread + 1);
  const State total =
      whole ? state(own_states_, 2 * thread) : state(states_, task.first_state + task.first_span);
  attend_span(layer.index, task, task.first_span, queries, total);
  for (int64_t span = task.first_span + 1; span <= last_span; ++span) {
    attend_span(layer.index, task, span, queries, part);
    combine(task, total, part);
  }
  if (whole) {
    write(layer, task, total);
  } else if (std::atomic_ref(finished_[task.set]).fetch_add(1, std::memory_order_acq_rel) + 1 ==
             task.set_size) {
    combine_set(layer, task);
  }
}

void Attention::gather_queries(const Layer& layer, const Task& task, float* queries) const {
  const int64_t n = task.n_heads * spec_.head_dim;
  for (int64_t token = 0; token < task.n_tokens; ++token) {
    const int64_t row = task.row() + token;
    const float* q = layer.projections.q + row * spec_.q_dim() + task.first_head * spec_.head_dim;
    std::copy_n(q, n, queries + token * n);
    if (rows_are_finished_here_) {
      finish_queries(layer, row, task.first_head, task.n_heads, queries + token * n);
    }
  }
}

// Attends to the blocks of a span that any of the queries sees, from a new state.
void Attention::attend_span(int64_t layer, const Task& task, int64_t span, const float* queries,
                            const State& state) const {
  const int64_t n_queries = task.n_queries();
  std::fill_n(state.max, n_queries, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum, n_queries, 0.0f);
  std::fill_n(state.out, n_queries * spec_.head_dim, 0.0f);
  const int64_t window = spec_.layer_window[layer];
  const int64_t oldest =
      window == kNoWindow ? 0 : std::max<int64_t>(0, task.position() - window + 1);
  const int64_t first = std::max(oldest / kBlockPositions, span * kSpanBlocks);
  const int64_t newest = task.last_position() / kBlockPositions;
  const int64_t last = std::min(newest, span * kSpanBlocks + kSpanBlocks - 1);
  for (int64_t block = first; block <= last; ++block) {
    attend_block(layer, task, block, std::min(block + 1, newest), queries, state);
  }
}

// `next` is the block to have near afterwards.
void Attention::attend_block(int64_t layer, const Task& task, int64_t block, int64_t next,
                             const float* queries, const State& state) const {
  int first[kMaxQueries], last[kMaxQueries];
  const int64_t begin = block * kBlockPositions;
  const int64_t window = spec_.layer_window[layer];
  for (int64_t i = 0; i < task.n_queries(); ++i) {
    const int64_t position = task.position() + i / task.n_heads;
    const int64_t oldest = window == kNoWindow ? 0 : position - window + 1;
    first[i] = static_cast<int>(std::clamp<int64_t>(oldest - begin, 0, kBlockPositions));
    last[i] = static_cast<int>(std::clamp<int64_t>(position + 1 - begin, 0, kBlockPositions));
  }
  const int index = task.segment->session->block_at(begin);
  const int after = task.segment->session->block_at(next * kBlockPositions);
  kernel_.attend({queries, task.n_queries(), spec_.head_dim,
                  cache_.keys(index, layer, task.kv_head),
                  cache_.values(index, layer, task.kv_head), first, last, spec_.attention_softcap,
                  state.max, state.sum, state.out, cache_.keys(after, layer, task.kv_head),
                  cache_.values(after, layer, task.kv_head)});
}

// Adds what later positions gave to what earlier ones did. A query that saw
// none of them keeps every bit.
void Attention::combine(const Task& task, const State& total, const State& part) const {
  const int64_t dim = spec_.head_dim;
  for (int64_t i = 0; i < task.n_queries(); ++i) {
    if (part.sum[i] == 0) continue;
    const float max = std::max(total.max[i], part.max[i]);
    const float keep = std::exp(total.max[i] - max);
    const float gain = std::exp(part.max[i] - max);
    total.max[i] = max;
    total.sum[i] = total.sum[i] * keep + part.sum[i] * gain;
    kernels_.scale(total.out + i * dim, keep, dim);
    kernels_.add(total.out + i * dim, part.out + i * dim, gain, dim);
  }
}

// By the last of a set's tasks to be through: all the others have written.
void Attention::combine_set(const Layer& layer, const Task& task) {
  const State total = state(states_, task.first_state);
  for (int64_t span = 1; span < task.set_size; ++span) {
    combine(task, total, state(states_, task.first_state + span));
  }
  write(layer, task, total);
  finished_[task.set] = 0;  // for the next layer
}

void Attention::write(const Layer& layer, const Task& task, const State& state) const {
  const int64_t dim = spec_.head_dim;
  for (int64_t i = 0; i < task.n_queries(); ++i) {
    float* mixed = layer.projections.mixed + (task.row() + i / task.n_heads) * spec_.q_dim() +
                   (task.first_head + i % task.n_heads) * dim;
    std::copy_n(state.out + i * dim, dim, mixed);
    kernels_.scale(mixed, 1 / state.sum[i], dim);
  }
}

}  // namespace influence
