// Counts allocations that are made without Python's GIL. In a process in which no other thread runs
// Python these are the core's own: its bindings release the GIL around its work, and take arguments apart
// and make results before and after. To be loaded before the C library (LD_PRELOAD), glibc's.
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

extern int PyGILState_Check(void) __attribute__((weak));  // absent in the programs that Python starts
extern void* __libc_malloc(size_t size);
extern void* __libc_calloc(size_t n, size_t size);
extern void* __libc_realloc(void* memory, size_t size);
extern void* __libc_memalign(size_t alignment, size_t size);

long n_allocations = 0;  // read by the tests

static void count(void) {
  if (PyGILState_Check != NULL && !PyGILState_Check()) {
    __atomic_fetch_add(&n_allocations, 1, __ATOMIC_RELAXED);
  }
}

void* malloc(size_t size) {
  count();
  return __libc_malloc(size);
}

void* calloc(size_t n, size_t size) {
  count();
  return __libc_calloc(n, size);
}

void* realloc(void* memory, size_t size) {
  count();
  return __libc_realloc(memory, size);
}

void* memalign(size_t alignment, size_t size) {
  count();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void** memory, size_t alignment, size_t size) {
  *memory = memalign(alignment, size);
  return *memory != NULL ? 0 : ENOMEM;
}

void* mmap(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  count();
  return (void*)syscall(SYS_mmap, address, length, protection, flags, file, offset);
}
