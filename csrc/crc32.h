// The checksum of zlib and gzip (CRC-32, polynomial 0x04C11DB7, reflected), by
// carry-less multiplication: several times as fast as zlib's own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace influence {

// Whether the CPU can; crc32 may be called only then.
bool has_fast_crc32();

// The CRC-32 of some bytes that end in `data`, `crc` being that of those before (0 if none).
uint32_t crc32(const uint8_t* data,  // (size)
               size_t size, uint32_t crc);

}  // namespace influence
