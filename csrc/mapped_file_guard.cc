#include "mapped_file_guard.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>

namespace influence {
namespace {

constexpr int kMaxRanges = 4096;
constexpr size_t kMaxPath = 240;

// Read by the signal handler, so plain memory and one atomic length as the switch.
struct Range {
  std::atomic<size_t> length{0};  // 0: free
  uintptr_t address = 0;
  char path[kMaxPath] = {};
};

Range ranges[kMaxRanges];
std::mutex ranges_mutex;
struct sigaction previous;

void say(const char* text) {
  // Nothing can be done about a failed write to stderr from here.
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

void on_bus_error(int signal, siginfo_t* info, void*) {
  uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (const Range& range : ranges) {
    size_t length = range.length.load(std::memory_order_acquire);
    if (length == 0 || address < range.address || address >= range.address + length) continue;
    say("\nerror: ");
    say(range.path);
    say(": the file was cut short while the model was in use\n"
        "hint: stop whatever writes to it, restore the file, and start again\n");
    _exit(1);
  }
  sigaction(signal, &previous, nullptr);  // not ours: the fault comes again, to whoever was first
}

void install_handler() {
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous);
}

}  // namespace

void watch_mapped_file(uintptr_t address, size_t length, const char* path) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  std::lock_guard lock(ranges_mutex);
  for (Range& range : ranges) {
    if (range.length.load(std::memory_order_relaxed) != 0) continue;
    range.address = address;
    std::strncpy(range.path, path, kMaxPath - 1);
    range.length.store(length, std::memory_order_release);
    return;
  }
}

void unwatch_mapped_file(uintptr_t address) {
  std::lock_guard lock(ranges_mutex);
  for (Range& range : ranges) {
    if (range.address == address) range.length.store(0, std::memory_order_release);
  }
}

}  // namespace influence
