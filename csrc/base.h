// Things every file of the core needs: sizes, errors, rounding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

namespace influence {

// Thrown where a size or an argument is wrong; becomes ValueError in Python.
struct InvalidArgument : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Thrown where the KV pool has no block left; becomes MemoryError in Python.
struct OutOfBlocks : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool condition, const std::string& message) {
  if (!condition) throw InvalidArgument(message);
}
// A text that is there already becomes a string only where it is thrown: steps allocate nothing.
inline void require(bool condition, const char* message) {
  if (!condition) throw InvalidArgument(message);
}

static constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

static constexpr int64_t ceil_div(int64_t n, int64_t divisor) {
  return (n + divisor - 1) / divisor;
}

// A cache line, and the width of the widest vector register (zmm).
inline constexpr size_t kAlignment = 64;

// Memory for vector loads; its bytes start undefined.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;

  // Makes room for `size` bytes; what was there is gone if the buffer grows.
  void reserve(int64_t size) {
    if (size <= size_) return;
    int64_t bytes = round_up(size, static_cast<int64_t>(kAlignment));
    memory_.reset(static_cast<char*>(std::aligned_alloc(kAlignment, bytes)));
    if (!memory_) throw std::bad_alloc();
    size_ = bytes;
  }
  char* data() { return memory_.get(); }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t size_ = 0;
};

}  // namespace influence
