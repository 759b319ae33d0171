#include <algorithm>
#include <iterator>
#include <vector>

#include "tables.h"

namespace influence {
namespace {

const KernelTable* const kTables[] = {
#if defined(__x86_64__)
    &amx_table,     &avx512_bf16_table, &avx512_table, &avx2_table,
#elif defined(__aarch64__)
    &neon_table,
#endif
    &generic_table,
};

std::string names_of(const std::vector<const KernelTable*>& tables) {
  std::string names;
  for (const KernelTable* table : tables) {
    if (!names.empty()) names += ", ";
    names += table->name;
  }
  return names;
}

}  // namespace

std::span<const KernelTable* const> kernel_tables() { return kTables; }

const KernelTable& select_kernels(const CpuFeatures& cpu, const std::string& name) {
  std::vector<const KernelTable*> runs;
  std::copy_if(std::begin(kTables), std::end(kTables), std::back_inserter(runs),
               [&](const KernelTable* table) { return table->supported(cpu); });
  if (name.empty()) return *runs.front();  // generic runs everywhere, so there is one
  for (const KernelTable* table : runs) {
    if (name == table->name) return *table;
  }
  bool exists = std::any_of(std::begin(kTables), std::end(kTables),
                            [&](const KernelTable* table) { return name == table->name; });
  throw InvalidArgument(
      (exists ? "this CPU can't run the kernel table '" : "there is no kernel table '") + name +
      "'; it runs: " + names_of(runs));
}

}  // namespace influence
