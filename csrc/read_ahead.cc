#include "read_ahead.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

namespace influence {
namespace {

#ifdef MADV_POPULATE_READ
constexpr int kPopulate = MADV_POPULATE_READ;
#else
constexpr int kPopulate = 22;  // Linux 5.14; elsewhere it is refused, and does no harm
#endif

// Large enough for a disk to be busy with, small enough to stop soon: 10 ms at 1.6 GB/s.
constexpr uintptr_t kChunkBytes = 16 << 20;

// Advice is taken or not: a file that was cut short meanwhile is told by whoever reads it.
void advise(uintptr_t begin, uintptr_t end, int advice) {
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

ReadAhead::ReadAhead(std::vector<std::span<const std::byte>> ranges)
    : ranges_(std::move(ranges)), thread_([this] { run(); }) {}

ReadAhead::~ReadAhead() {
  stopped_ = true;
  wait();
}

void ReadAhead::wait() {
  if (thread_.joinable()) thread_.join();
}

// The disk is asked for a chunk while the one before it is waited for.
void ReadAhead::run() {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (std::span<const std::byte> range : ranges_) {
    const auto begin = reinterpret_cast<uintptr_t>(range.data()) / page * page;
    const auto end = reinterpret_cast<uintptr_t>(range.data() + range.size());
    for (uintptr_t at = begin; at < end && !stopped_; at += kChunkBytes) {
      const uintptr_t next = std::min(at + kChunkBytes, end);
      advise(next, std::min(next + kChunkBytes, end), MADV_WILLNEED);
      advise(at, next, kPopulate);
    }
  }
}

}  // namespace influence
