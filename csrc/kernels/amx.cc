// AMX (Intel since Sapphire Rapids): avx512_bf16, with products of BF16 weights in
// tiles, nine times as fast for many tokens, and those of q8, of q4 and of BF16 in
// twelve bits. Activations are rounded as there; a sum's order differs, so its last bits do.
#include <math.h>

// clang-format off
#include "simd_avx512.h"  // first: the others are written in its terms
#include "dot_bf16.h"
#include "vector_table.h"
#include "simd_amx.h"
#include "tile_matmul.h"
#include "tile_packed.h"
#include "tile_q4.h"
#include "tile_bf12.h"
// clang-format on

namespace influence {
namespace {

bool supported(const CpuFeatures& cpu) { return cpu.amx; }

constexpr KernelTable table() {
  KernelTable table = vector_table<DotBF16Format>("amx", supported);
  table.matmul[static_cast<int>(DType::kBF16)] = {
      .prepared_bytes = prepared_bytes<DotBF16Format>,
      .rows_per_task = 256,
      .prepare = prepare<DotBF16Format>,
      .scratch_bytes = copies_bytes,
      .multiply = multiply_tiles,
      .row_unit = kTileUnit,
      .arrange = arrange_tokens,
  };
  table.matmul[static_cast<int>(DType::kBF12)] = {
      .prepared_bytes = prepared_bytes<DotBF16Format>,
      .rows_per_task = kUnpackedRows,
      .prepare = prepare<DotBF16Format>,
      .scratch_bytes = unpacked_and_copies_bytes,
      .multiply = multiply_bf12_tiles,
      .row_unit = kTileUnit,
      .arrange = arrange_tokens,
  };
  table.matmul[static_cast<int>(DType::kQ8)].multiply = multiply_packed_tiles;
  table.matmul[static_cast<int>(DType::kQ4)].multiply = multiply_q4_tiles;
  table.matmul[static_cast<int>(DType::kQ4)].scratch_bytes = q4_totals_bytes;
  return table;
}

}  // namespace

constinit const KernelTable amx_table = table();

}  // namespace influence
