#include "quantize.h"

#include <algorithm>
#include <vector>

#include "thread_pool.h"

namespace influence {

void pack(const Matrix& source, DType packed, const KernelTable& kernels, int n_threads,
          void* out) {
  std::vector<std::vector<float>> rows(n_threads, std::vector<float>(source.cols));
  ThreadPool pool(n_threads);
  pool.run(n_threads, [&](Team& team) {
    float* row = rows[team.thread()].data();
    team.for_each(ceil_div(source.rows, kPanelRows), [&](int64_t index) {
      char* panel = static_cast<char*>(out) + index * panel_bytes(packed, source.cols);
      for (int64_t r = 0; r < kPanelRows; ++r) {
        const int64_t source_row = index * kPanelRows + r;
        if (source_row < source.rows) {
          kernels.load_row(source.dtype, source.row(source_row), 1, source.cols, row);
        } else {
          std::fill_n(row, source.cols, 0.0f);
        }
        kernels.pack_row(packed, row, source.cols, r, panel);
      }
    });
  });
}

}  // namespace influence
