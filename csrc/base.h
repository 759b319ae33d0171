// Things every file of the core needs: sizes, errors, rounding.
#pragma once

#include <cstddef>
#include <cstdint>
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

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

constexpr int64_t ceil_div(int64_t n, int64_t divisor) { return (n + divisor - 1) / divisor; }

// A cache line, and the width of the widest vector register (zmm).
inline constexpr size_t kAlignment = 64;

}  // namespace influence
