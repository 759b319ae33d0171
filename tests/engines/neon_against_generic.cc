// Runs every entry of the neon table beside the generic one on sizes that four
// lanes do not divide. Prints what differs; exits with the number of failures.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "bf12.h"
#include "kernels/tables.h"

using namespace influence;

namespace {

int failures = 0;
std::mt19937 random_bits(7);

using Row = std::vector<float>;

Row normals(int64_t n) {
  std::normal_distribution<float> normal;
  Row row(n);
  for (float& x : row) x = normal(random_bits);
  return row;
}

// Finite numbers of modest size in any of the three formats.
std::vector<uint32_t> weights(DType dtype, int64_t n) {
  std::vector<uint32_t> words(n);
  for (uint32_t& word : words) {
    float x = normals(1)[0];
    if (dtype == DType::kF32) std::memcpy(&word, &x, sizeof(x));
    if (dtype == DType::kF16) word = random_bits() & 0xbbffbbffu;   // below 2
    if (dtype == DType::kBF16) word = random_bits() & 0xbfffbfffu;  // below 2
  }
  return words;
}

void compare(const std::string& what, const Row& got, const Row& expected, float tolerance) {
  float largest = 0, error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::fmax(largest, std::fabs(expected[i]));
    error = std::fmax(error, std::fabs(got[i] - expected[i]));
    if (std::isnan(got[i])) error = INFINITY;
  }
  if (error <= tolerance * (1 + largest)) return;
  std::printf("%s: off by %g of %g\n", what.c_str(), error, largest);
  ++failures;
}

Row multiply(const KernelTable& table, DType dtype, const Row& x, int64_t n_tokens,
             const std::vector<uint32_t>& w, int64_t n_rows, int64_t cols) {
  const MatmulKernel& kernel = table.matmul[static_cast<int>(dtype)];
  std::vector<float> prepared(n_tokens * kernel.prepared_bytes(cols) / 4 + 16);
  auto address = reinterpret_cast<uintptr_t>(prepared.data());
  auto* aligned = reinterpret_cast<void*>(round_up(address, kAlignment));
  kernel.prepare(x.data(), cols, n_tokens, cols, aligned);
  Row out(n_tokens * n_rows);
  kernel.multiply(aligned, n_tokens, w.data(), cols, n_rows, cols, out.data(), n_rows, nullptr);
  return out;
}

void check_matmul(int64_t n_tokens, int64_t n_rows, int64_t cols) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Row x = normals(n_tokens * cols);
    auto w = weights(dtype, n_rows * cols);
    std::string what = "matmul " + std::to_string(n_tokens) + " x " + std::to_string(n_rows) +
                       " x " + std::to_string(cols);
    compare(what, multiply(neon_table, dtype, x, n_tokens, w, n_rows, cols),
            multiply(generic_table, dtype, x, n_tokens, w, n_rows, cols), 1e-5f);
  }
}

std::vector<uint64_t> packed(const KernelTable& table, DType dtype, const Row& w, int64_t n_rows,
                             int64_t cols) {
  std::vector<uint64_t> bytes(packed_bytes(dtype, n_rows, cols) / 8);
  for (int64_t r = 0; r < n_rows; ++r) {
    char* panel = reinterpret_cast<char*>(bytes.data()) + r / kPanelRows * panel_bytes(dtype, cols);
    table.pack_row(dtype, w.data() + r * cols, cols, r % kPanelRows, panel);
  }
  return bytes;
}

Row multiply_packed(const KernelTable& table, DType dtype, const Row& x, int64_t n_tokens,
                    const std::vector<uint64_t>& w, int64_t n_rows, int64_t cols) {
  const MatmulKernel& kernel = table.matmul[static_cast<int>(dtype)];
  std::vector<float> prepared(n_tokens * kernel.prepared_bytes(cols) / 4 + 16);
  auto address = reinterpret_cast<uintptr_t>(prepared.data());
  auto* aligned = reinterpret_cast<void*>(round_up(address, kAlignment));
  kernel.prepare(x.data(), cols, n_tokens, cols, aligned);
  Row out(n_tokens * n_rows);
  AlignedBuffer scratch;
  scratch.reserve(kernel.scratch_bytes(cols));
  kernel.multiply(aligned, n_tokens, w.data(), 0, n_rows, cols, out.data(), n_rows, scratch.data());
  return out;
}

void check_packed(int64_t n_tokens, int64_t n_rows, int64_t cols) {
  for (DType dtype : {DType::kQ8, DType::kQ4}) {
    Row x = normals(n_tokens * cols), w = normals(n_rows * cols);
    auto bytes = packed(generic_table, dtype, w, n_rows, cols);
    if (packed(neon_table, dtype, w, n_rows, cols) != bytes) {
      std::printf("packing %lld rows of %lld differs\n", static_cast<long long>(n_rows),
                  static_cast<long long>(cols));
      ++failures;
    }
    std::string what = "packed " + std::to_string(n_tokens) + " x " + std::to_string(n_rows) +
                       " x " + std::to_string(cols);
    compare(what, multiply_packed(neon_table, dtype, x, n_tokens, bytes, n_rows, cols),
            multiply_packed(generic_table, dtype, x, n_tokens, bytes, n_rows, cols), 1e-5f);
  }
}

// The very bits of the product with stored weights.
void check_bf12(int64_t n_tokens, int64_t n_rows, int64_t cols) {
  const Row x = normals(n_tokens * cols);
  auto w = weights(DType::kBF16, (n_rows * cols + 1) / 2);
  for (uint32_t& word : w) word = (word & 0x83ff83ffu) | 0x38003800u;  // 8 exponents,
  w[0] = 0x38003f80u;                                                  // and an exception
  Matrix matrix = {w.data(), DType::kBF16, n_rows, cols, cols, n_rows, 0};
  std::vector<uint64_t> bytes(packed_bytes(DType::kBF12, n_rows, cols) / 8);
  pack_bf12(matrix, 1, bytes.data());
  for (const KernelTable* table : {&neon_table, &generic_table}) {
    if (multiply_packed(*table, DType::kBF12, x, n_tokens, bytes, n_rows, cols) ==
        multiply(*table, DType::kBF16, x, n_tokens, w, n_rows, cols)) {
      continue;
    }
    std::printf("bf12 %s %lld x %lld\n", table->name, static_cast<long long>(n_rows),
                static_cast<long long>(cols));
    ++failures;
  }
}

Row attend(const KernelTable& table, int cache, int64_t n_queries, int64_t head_dim,
           const Row& rows, const Row& q, float softcap) {
  const AttentionKernel& kernel = table.attention[cache];
  std::vector<float> keys(kv_bytes(static_cast<KvType>(cache), head_dim) / sizeof(float)),
      values(keys);
  for (int64_t slot = 0; slot < kBlockPositions; ++slot) {
    const float* row = rows.data() + slot * head_dim;
    kernel.store(row, row, head_dim, slot, keys.data(), values.data());
  }
  std::vector<int> first(n_queries), last(n_queries);
  for (int i = 0; i < n_queries; ++i) first[i] = i, last[i] = 64 - 2 * i;
  Row max(n_queries, -INFINITY), sum(n_queries), out(n_queries * head_dim);
  kernel.attend({q.data(), n_queries, head_dim, keys.data(), values.data(), first.data(),
                 last.data(), softcap, max.data(), sum.data(), out.data()});
  out.insert(out.end(), sum.begin(), sum.end());
  return out;
}

void check_attention(int64_t n_queries, int64_t head_dim) {
  Row rows = normals(kBlockPositions * head_dim), q = normals(n_queries * head_dim);
  for (float& x : q) x /= std::sqrt(static_cast<float>(head_dim));
  for (int cache = 0; cache < kKvTypeCount; ++cache) {
    for (float softcap : {0.0f, 4.0f}) {
      compare("attend head_dim " + std::to_string(head_dim),
              attend(neon_table, cache, n_queries, head_dim, rows, q, softcap),
              attend(generic_table, cache, n_queries, head_dim, rows, q, softcap), 1e-5f);
    }
  }
}

// Every kernel over one row, one result after the other.
Row row_kernels(const KernelTable& table, const Row& x, const Row& y) {
  auto n = static_cast<int64_t>(x.size());
  Row all, row(n);
  auto keep = [&] { all.insert(all.end(), row.begin(), row.end()); };
  table.rms_norm(x.data(), y.data(), 1, 1e-5f, n, row.data()), keep();
  table.layer_norm(x.data(), y.data(), y.data(), 0, 1e-5f, n, row.data()), keep();
  for (int a = 0; a <= static_cast<int>(Activation::kReluSquared); ++a) {
    row = x;
    table.activate(static_cast<Activation>(a), row.data(), y.data(), n), keep();
  }
  row = x, table.softcap(row.data(), 0.7f, n), keep();
  row = x, table.add(row.data(), y.data(), 0.3f, n), keep();
  row = x, table.scale(row.data(), 0.3f, n), keep();
  row = x, table.rope(row.data(), y.data(), y.data() + n / 2, n / 2 * 2, false), keep();
  row = x, table.rope(row.data(), y.data(), y.data() + n / 2, n / 2 * 2, true), keep();
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<uint32_t> words(n);
    for (int64_t i = 0; i < n; ++i) words[i] = 0x3c013c01u + static_cast<uint32_t>(i * 77);
    table.load_row(dtype, words.data(), 2, n, row.data()), keep();
  }
  return all;
}

}  // namespace

int main() {
  for (int64_t n : {1, 2, 3, 5, 7, 15, 17, 33, 65, 257}) {
    check_attention(1 + n % 16, n);
    check_matmul(n % 9 + 1, n % 11 + 1, n);
    check_packed(n % 9 + 1, n % 90 + 1, n);
    check_bf12(n % 9 + 1, n % 90 + 1, n);
    Row x = normals(n), y = normals(n);
    compare("rows of " + std::to_string(n), row_kernels(neon_table, x, y),
            row_kernels(generic_table, x, y), 1e-5f);
  }
  check_matmul(50, 51, 1100);
  check_packed(50, 130, 1100);
  check_bf12(1, 130, 1100);
  check_bf12(20, 130, 1100);
  check_bf12(50, 130, 1100);
  return failures;
}
