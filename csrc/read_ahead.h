// Weights of a mapped file brought into the page table, in the order in which a
// pass meets them, by a thread of their own: while a tokenizer is read and the
// first layers already run. From the disk where they are not in memory yet.
#pragma once

#include <atomic>
#include <cstddef>
#include <span>
#include <thread>
#include <vector>

namespace influence {

class ReadAhead {
 public:
  // Begins at once. Whoever owns the memory keeps it until this object is gone.
  explicit ReadAhead(std::vector<std::span<const std::byte>> ranges);
  // Stops within the time that one chunk takes.
  ~ReadAhead();

  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Waits for the end.
  void wait();

 private:
  void run();

  const std::vector<std::span<const std::byte>> ranges_;
  std::atomic<bool> stopped_{false};
  std::thread thread_;  // last: it uses what stands above
};

}  // namespace influence
