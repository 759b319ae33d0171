// What happens when a mapped weights file is truncated while it is in use: the
// kernel raises SIGBUS at the next read. Without a handler the process dies
// without a word; with this one it says which file and what to do, and exits 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace influence {

// Watch `length` bytes at `address`, a mapping of `path`. Ranges beyond the
// table's capacity (4096) are not watched.
void watch_mapped_file(uintptr_t address, size_t length, const char* path);

// Forget the range that begins at `address`.
void unwatch_mapped_file(uintptr_t address);

}  // namespace influence
