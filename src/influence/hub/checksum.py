"""The checksum that journals and manifests keep of a block: zlib's CRC-32, by the core where the CPU can."""

from __future__ import annotations

import zlib

from influence import _native

crc32 = _native.crc32 if _native.has_fast_crc32() else zlib.crc32
