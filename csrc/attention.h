// Attention of one pass: from the projections of all rows to their mixed values.
//
// A sequence's positions are cut into spans of kSpanBlocks blocks, at the same
// places whatever runs. Each span is attended to by itself, and what the spans
// give is combined in their order. So it makes no difference to any bit whether
// one thread takes all spans, as for a long prompt, or each has a task of its
// own, as where one sequence decodes: all threads work on it, however few KV
// heads it has.
//
// Queries that share a KV head share its loads: a task is as many tokens of a
// group of heads as one call of the kernel covers.
#pragma once

#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "pass.h"
#include "thread_pool.h"
#include "weights.h"

namespace influence {

// Activations of a layer's attention, a row for each row of the pass.
struct Projections {
  float* q;      // (n_rows, q_dim)   changed: norms, ropes and scale are applied in place
  float* k;      // (n_rows, kv_dim)  changed likewise
  float* v;      // (n_rows, kv_dim)
  float* mixed;  // (n_rows, q_dim)   out
};

class Attention {
 public:
  // The arguments must outlive it.
  Attention(const Spec& spec, const KernelTable& kernels, const KvCache& cache, int n_threads);

  // Makes the tasks of a pass; both must stay as they are until it is over.
  void plan(std::span<const Segment> segments, std::span<const Row> rows);

  // How far a row's ropes have turned. To be called for every row before run().
  void turn(int64_t row);

  // A stage of all threads: keys and values go into the cache, mixed values come out.
  void run(Team& team, int64_t layer, const LayerWeights& weights, const Projections& projections);

 private:
  // Queries of one KV head over some spans of their session's positions. The
  // tasks of the same queries are neighbours: a set, of one task for each span or
  // of one for all.
  struct Task {
    const Segment* segment;
    int64_t first_token, n_tokens;  // within the segment
    int64_t kv_head;
    int64_t first_head, n_heads;
    int64_t first_span, n_spans;
    int64_t set;          // its place among the sets
    int64_t first_state;  // of the set; that of a span of its own is so many further
    int64_t set_size;     // tasks

    int64_t n_queries() const { return n_tokens * n_heads; }
    int64_t row() const { return segment->row + first_token; }
    int64_t position() const { return segment->position + first_token; }
    int64_t last_position() const { return position() + n_tokens - 1; }
  };
  // What is kept of a task's queries over a run of positions; see AttendArgs.
  struct State {
    float* max;  // (kMaxQueries,)
    float* sum;  // (kMaxQueries,)
    float* out;  // (kMaxQueries, head_dim)
  };
  struct Layer {
    int64_t index;
    const LayerWeights& weights;
    const Projections& projections;
  };

  void plan_segment(const Segment& segment, bool share_spans);
  void add_set(Task task, bool share_spans);
  State state(std::vector<float>& states, int64_t index) const;

  void finish_row(const Layer& layer, int64_t row) const;
  void finish_queries(const Layer& layer, int64_t row, int64_t first_head, int64_t n_heads,
                      float* q) const;
  void finish_keys(const Layer& layer, int64_t row, int64_t first_head, int64_t n_heads) const;
  void store(const Layer& layer, int64_t row, int64_t first_head, int64_t n_heads) const;
  void normalise_heads(const NormWeights& weights, float* x, int64_t first_head,
                       int64_t n_heads) const;
  void turn_heads(int64_t layer, int64_t row, float* x, int64_t n_heads) const;

  void attend(const Layer& layer, const Task& task, int thread);
  void gather_queries(const Layer& layer, const Task& task, float* queries) const;
  void attend_span(int64_t layer, const Task& task, int64_t span, const float* queries,
                   const State& state) const;
  void attend_block(int64_t layer, const Task& task, int64_t block, int64_t next,
                    const float* queries, const State& state) const;
  void combine(const Task& task, const State& total, const State& part) const;
  void combine_set(const Layer& layer, const Task& task);
  void write(const Layer& layer, const Task& task, const State& state) const;

  const Spec& spec_;
  const KernelTable& kernels_;
  const KvCache& cache_;
  const int n_threads_;
  const AttentionKernel& kernel_;
  int64_t angles_per_row_ = 0;

  // The pass that runs now.
  std::span<const Row> rows_;
  std::vector<Task> tasks_;
  std::vector<int> finished_;            // by set: tasks that are through
  std::vector<float> states_;            // of tasks that share a set
  bool rows_are_finished_here_ = false;  // by the tasks, each its own heads

  std::vector<float> cos_, sin_;   // (n_rows, angles_per_row): one rope after the other
  std::vector<float> queries_;     // (n_threads, kMaxQueries, head_dim)
  std::vector<float> own_states_;  // two for each thread
};

}  // namespace influence
