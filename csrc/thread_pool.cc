#include "thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace influence {
namespace {

// A pause takes 40 to 140 cycles on today's CPUs, so this spins for 30 to 100
// microseconds: longer than the imbalance of a loop, shorter than anyone notices.
constexpr int kSpins = 2000;

int spins_of(int n_threads) {
  const unsigned cores = std::thread::hardware_concurrency();  // that this process may use
  return cores == 0 || n_threads <= static_cast<int>(cores) ? kSpins : 0;
}

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns when `value` is no longer `old`.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads) : n_threads_(n_threads), spins_(spins_of(n_threads)) {
  require(n_threads >= 1, "the number of threads must be at least 1");
  for (int thread = 1; thread < n_threads; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int team_size, const std::function<void(Team&)>& body) {
  if (team_size == 1) {
    Team alone(*this, 0, 1);
    return body(alone);
  }
  body_ = &body;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  Team team(*this, 0, n_threads_);
  body(team);
  barrier();
}

void ThreadPool::work(int thread) {
  uint32_t seen = 0;
  for (;;) {
    wait_for_change(round_, seen, spins_);
    ++seen;  // run() returns only after all threads took this round, so none is skipped
    if (stop_.load(std::memory_order_relaxed)) return;
    Team team(*this, thread, n_threads_);
    (*body_)(team);
    barrier();
  }
}

void ThreadPool::barrier() {
  uint32_t passed = released_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == n_threads_) {
    // The last to arrive resets what the next loop uses, then lets all go.
    arrived_.store(0, std::memory_order_relaxed);
    next_.store(0, std::memory_order_relaxed);
    released_.fetch_add(1, std::memory_order_release);
    released_.notify_all();
  } else {
    wait_for_change(released_, passed, spins_);
  }
}

}  // namespace influence
