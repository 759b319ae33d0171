// The threads of the engine, made once.
//
// A step of the model runs as one body that all threads execute together; the
// parts of the body that can be shared out are loops that end in a barrier:
//
//     pool.run(pool.n_threads(), [&](Team& team) {
//       team.for_each(n_rows, [&](int64_t row) { norm(row); });   // barrier
//       team.for_each(n_tasks, [&](int64_t task) { multiply(task); });
//     });
//
// Waiting threads spin for some microseconds, which is what most waits last,
// and then sleep, so an idle engine uses no CPU. Where there are more threads than
// cores they sleep at once: the one that is waited for needs the core.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "base.h"

namespace influence {

class ThreadPool;

// One thread's view of a running body.
class Team {
 public:
  Team(ThreadPool& pool, int thread, int n_threads)
      : pool_(pool), thread_(thread), n_threads_(n_threads) {}

  int thread() const { return thread_; }  // 0 is the caller of run()
  int n_threads() const { return n_threads_; }

  // body(0) ... body(n - 1), each once, by whichever thread is free; returns on
  // all threads when all are done. Every thread of the team must make the same
  // calls in the same order.
  template <typename Body>
  void for_each(int64_t n, const Body& body);

 private:
  ThreadPool& pool_;
  int thread_;
  int n_threads_;
};

class ThreadPool {
 public:
  // `n_threads` at least 1; the caller of run() is one of them.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return n_threads_; }

  // Runs body on every thread, or, with a team of 1, on the caller alone, while
  // the others sleep; returns when all are through. Not reentrant; the body must
  // not throw.
  void run(int team_size, const std::function<void(Team&)>& body);

 private:
  friend class Team;

  void work(int thread);
  void barrier();

  const int n_threads_;
  const int spins_;
  std::vector<std::thread> workers_;
  const std::function<void(Team&)>* body_ = nullptr;  // set by run() before it raises the round
  std::atomic<uint32_t> round_{0};                    // counts run() calls; odd work is never lost
  std::atomic<bool> stop_{false};

  // Each on a line of its own: all threads hammer them.
  alignas(kAlignment) std::atomic<int64_t> next_{0};       // the next index of the current loop
  alignas(kAlignment) std::atomic<int> arrived_{0};        // threads at the barrier
  alignas(kAlignment) std::atomic<uint32_t> released_{0};  // barriers passed
};

template <typename Body>
void Team::for_each(int64_t n, const Body& body) {
  if (n_threads_ == 1) {
    for (int64_t i = 0; i < n; ++i) body(i);
    return;
  }
  for (;;) {
    int64_t i = pool_.next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= n) break;
    body(i);
  }
  pool_.barrier();
}

}  // namespace influence
