"""The core's checksum is zlib's, so that journals and manifests of every machine are good on every other."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence import _native
from influence.hub import checksum
from support.memory_source import some_bytes

LARGE = some_bytes(1 << 20)

fast_only = pytest.mark.skipif(
    not _native.has_fast_crc32(), reason="this CPU multiplies without carries in no way"
)


def test_a_checksum_is_the_one_that_every_tool_knows() -> None:
    assert checksum.crc32(b"123456789") == 0xCBF43926


@fast_only
@pytest.mark.parametrize("offset", [0, 1, 7, 15])
def test_every_length_gives_what_zlib_gives(offset: int) -> None:
    for size in range(400):
        data = memoryview(LARGE)[offset : offset + size]
        assert _native.crc32(data) == zlib.crc32(data)
        assert _native.crc32(data, 0x89ABCDEF) == zlib.crc32(data, 0x89ABCDEF)


@fast_only
@given(data=st.binary(max_size=2000), crc=st.integers(0, 2**32 - 1), split=st.integers(0, 2000))
def test_bytes_in_two_pieces_give_the_checksum_of_all(data: bytes, crc: int, split: int) -> None:
    first, second = data[:split], data[split:]
    assert _native.crc32(second, _native.crc32(first, crc)) == zlib.crc32(data, crc)


@fast_only
@pytest.mark.parametrize(
    "data", [LARGE, bytearray(LARGE), memoryview(LARGE)[3:], bytes(1 << 20), b"\xff" * 1000]
)
def test_many_bytes_of_any_kind_give_what_zlib_gives(data: bytes | bytearray | memoryview) -> None:
    assert _native.crc32(data) == zlib.crc32(data)


@fast_only
def test_a_single_bit_anywhere_changes_it() -> None:
    data = bytearray(LARGE[:1000])
    whole = _native.crc32(data)
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert _native.crc32(data) != whole
        data[bit // 8] ^= 1 << bit % 8


def test_what_holds_no_bytes_is_refused() -> None:
    with pytest.raises(TypeError):
        _native.crc32("text")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        _native.crc32(memoryview(LARGE)[::2])
