"""Each way in which a header can be wrong has its error, and the safetensors package refuses it too."""

import json
from pathlib import Path

import pytest
import safetensors

from influence.errors import InvalidCheckpoint, ModelFilesMissing
from influence.weights.safetensors import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    TensorInfo,
    header_length,
    parse_header,
    read_header,
)
from support.safetensors_files import nested, safetensors_file, with_length

PATH = Path("model.safetensors")
U8 = '"dtype":"U8","shape":[3],"data_offsets":[0,3]'
DATA = b"abc"


def one(fields: str) -> str:
    return '{"w":{' + fields + "}}"


def two(a: str, b: str) -> str:
    return '{"a":{' + a + '},"b":{' + b + "}}"


def u8(begin: int, end: int, size: int | None = None) -> str:
    return f'"dtype":"U8","shape":[{end - begin if size is None else size}],"data_offsets":[{begin},{end}]'


def refused_by_the_package(file: bytes) -> bool:
    try:
        safetensors.deserialize(file)
    except safetensors.SafetensorError:
        return True
    return False


MALFORMED = {
    "empty file": (b"", "too short"),
    "seven bytes": (b"1234567", "too short"),
    "length zero": (with_length("", length=0), "expected an object"),
    "length one beyond the file": (with_length("{}", length=3), "the file ends after 2"),
    "length over the limit": (with_length("{}", length=MAX_HEADER_BYTES + 1), "more than the 100000000"),
    "length of 2**63": (with_length("{}", length=2**63), "more than the 100000000"),
    "length of 2**64 - 1": (with_length("{}", length=2**64 - 1), "more than the 100000000"),
    "length cuts the header": (with_length(one(U8), DATA, length=20), "w'"),
    "not UTF-8": (with_length(b'{"\xff":1}'), "not UTF-8 at byte 10"),
    "a surrogate in UTF-8": (with_length(b'{"\xed\xa0\x80":1}'), "not UTF-8"),
    "UTF-8 cut off": (with_length(b'{"a\xc3'), "not UTF-8"),
    "a byte order mark": (with_length("\ufeff" + one(U8), DATA), "expected an object"),
    "a leading character": (with_length("x" + one(U8), DATA), "expected an object at byte 8"),
    "a list": (with_length("[]"), "expected an object"),
    "null": (with_length("null"), "expected an object"),
    "padded with zeros": (with_length(one(U8) + "\0", DATA), "expected the end"),
    "text after the object": (with_length(one(U8) + "{}", DATA), "expected the end"),
    "an object that does not end": (with_length(one(U8)[:-1], DATA), "expected ',' or '}'"),
    "a trailing comma": (with_length(one(U8)[:-1] + ",}", DATA), "expected a key"),
    "a key without quotes": (with_length("{w:1}"), "expected a key"),
    "a lone surrogate as name": (with_length('{"\\ud800":{' + U8 + "}}", DATA), "expected a key"),
    "a control character in a name": (with_length('{"\t":{' + U8 + "}}", DATA), "expected a key"),
    "an unknown escape": (with_length('{"\\v":{' + U8 + "}}", DATA), "expected a key"),
    "a tensor that is null": (with_length('{"w":null}'), "tensor 'w'"),
    "a tensor that is a number": (with_length('{"w":1}'), "expected an object"),
    "no dtype": (with_length(one('"shape":[0],"data_offsets":[0,0]')), "no 'dtype'"),
    "no shape": (with_length(one('"dtype":"U8","data_offsets":[0,0]')), "no 'shape'"),
    "no offsets": (with_length(one('"dtype":"U8","shape":[0]')), "no 'data_offsets'"),
    "a field twice": (with_length(one('"dtype":"U8",' + U8), DATA), "'dtype' is there twice"),
    "an unknown dtype": (with_length(one(U8.replace("U8", "F31")), DATA), "unknown dtype 'F31'"),
    "a dtype in small letters": (with_length(one(U8.replace("U8", "u8")), DATA), "unknown dtype 'u8'"),
    "a dtype that is a number": (with_length(one(U8.replace('"U8"', "8")), DATA), "expected a string"),
    "a dtype of two names": (
        with_length(one(U8.replace('"U8"', '{"U8":null,"I8":null}')), DATA),
        "one dtype, found 2",
    ),
    "a dtype with content": (with_length(one(U8.replace('"U8"', '{"U8":1}')), DATA), "expected null"),
    "a negative size": (with_length(one(U8.replace("[3]", "[-3]")), DATA), "not negative"),
    "minus zero": (with_length(one(u8(0, 0).replace("[0]", "[-0]"))), "not negative"),
    "a size with a point": (with_length(one(U8.replace("[3]", "[3.0]")), DATA), "expected an integer"),
    "a size with an exponent": (with_length(one(U8.replace("[3]", "[3e0]")), DATA), "expected an integer"),
    "a size that is text": (with_length(one(U8.replace("[3]", '["3"]')), DATA), "expected an integer"),
    "a size of 2**64": (with_length(one(u8(0, 0).replace("[0]", f"[0,{2**64}]"))), "above 2**64 - 1"),
    "a size of 10**5000": (
        with_length(one(u8(0, 0).replace("[0]", f"[0,1{'0' * 5000}]"))),
        "above 2**64 - 1",
    ),
    "a shape that is a number": (with_length(one(U8.replace("[3]", "3")), DATA), "expected an array"),
    "a shape whose product overflows": (
        with_length(one(u8(0, 0).replace("[0]", f"[{2**32},{2**32},0]"))),
        "larger than 64 bits",
    ),
    "bits that overflow": (with_length(one(u8(0, 0).replace("[0]", f"[{2**61}]"))), "larger than 64 bits"),
    "one offset": (with_length(one(U8.replace("[0,3]", "[0]")), DATA), "two offsets, found 1"),
    "three offsets": (with_length(one(U8.replace("[0,3]", "[0,3,3]")), DATA), "two offsets, found 3"),
    "offsets reversed": (with_length(one(U8.replace("[0,3]", "[3,0]")), DATA), "before it begins"),
    "a size that does not match": (
        with_length(one(U8.replace("[3]", "[2]")), DATA),
        "is 2 bytes, but 3 are set aside",
    ),
    "half a byte": (with_length(one('"dtype":"F4","shape":[3],"data_offsets":[0,1]'), b"a"), "whole bytes"),
    "six bits": (with_length(one('"dtype":"F6_E2M3","shape":[1],"data_offsets":[0,1]'), b"a"), "whole bytes"),
    "a hole at the start": (with_length(one(u8(1, 4)), b"abcd"), "bytes 0 to 1 of the data"),
    "a hole between": (with_length(two(u8(0, 3), u8(4, 7)), b"abcdefg"), "bytes 3 to 4 of the data"),
    "an overlap": (with_length(two(u8(0, 3), u8(2, 5)), b"abcde"), "tensor 'b': overlaps"),
    "the same place twice": (with_length(two(u8(0, 3), u8(0, 3)), DATA), "overlaps"),
    "nothing in the middle of another": (with_length(two(u8(0, 3), u8(2, 2)), DATA), "overlaps"),
    "data cut short": (with_length(one(U8), b"ab"), "cut short: 3 bytes of tensors, of which 2 are there"),
    "offsets beyond the file": (with_length(one(u8(0, 10**15))), "cut short"),
    "bytes after the last tensor": (with_length(one(U8), DATA + b"d"), "1 bytes after its last tensor"),
    "data without tensors": (with_length("{}", b"d"), "1 bytes after its last tensor"),
    "metadata of numbers": (with_length('{"__metadata__":{"a":1}}'), "'__metadata__'"),
    "metadata that is text": (with_length('{"__metadata__":"a"}'), "expected null"),
    "metadata that is a list": (with_length('{"__metadata__":[]}'), "expected null"),
    "metadata twice": (with_length('{"__metadata__":null,"__metadata__":null}'), "is there twice"),
    "a fourth element": (with_length('{"w":["U8",[3],[0,3],0]}', DATA), "more than dtype, shape"),
    "NaN in a field we skip": (with_length(one('"x":NaN,' + U8), DATA), "expected a value"),
    "a number beyond a double": (with_length(one('"x":1e400,' + U8), DATA), "out of range"),
    "a leading zero": (with_length(one('"x":01,' + U8), DATA), "expected ','"),
    "a lone surrogate in a field we skip": (with_length(one('"x":"\\udc00",' + U8), DATA), "not well-formed"),
    "nesting of 128": (with_length(one(f'"x":{nested(126)},' + U8), DATA), "127 levels of nesting"),
    "nesting of 100000": (with_length(one(f'"x":{nested(100_000)},' + U8), DATA), "127 levels of nesting"),
    "a duplicate whose last is wrong": (
        with_length('{"w":{' + U8 + '},"w":{' + u8(0, 4) + "}}", DATA),
        "cut short",
    ),
}

UNUSUAL = {
    "no tensors": with_length("{}"),
    "space around everything": with_length(
        ' \n{ \t"w" : { ' + U8.replace(":", " : ").replace(",", " ,\r") + " } } \n", DATA
    ),
    "the array form": with_length('{"w":["U8",[3],[0,3]]}', DATA),
    "a dtype as an object": with_length(one(U8.replace('"U8"', '{"U8":null}')), DATA),
    "fields in another order": with_length(one('"data_offsets":[0,3],"shape":[3],"dtype":"U8"'), DATA),
    "escaped keys": with_length(one(U8.replace("dtype", "\\u0064type").replace("U8", "\\u00558")), DATA),
    "unknown fields": with_length(one('"x":{"y":[1,-2.5e3,null,true,"\\ud83d\\ude00"]},"x":0,' + U8), DATA),
    "nesting of 127": with_length(one(f'"x":{nested(125)},' + U8), DATA),
    "a tiny number": with_length(one('"x":[1e-999,0e999,-0.0],' + U8), DATA),
    "a duplicate whose last is right": with_length('{"w":{' + u8(5, 9) + '},"w":{' + U8 + "}}", DATA),
    "a scalar": with_length(one('"dtype":"F32","shape":[],"data_offsets":[0,4]'), b"abcd"),
    "no elements": with_length(one('"dtype":"F32","shape":[2,0],"data_offsets":[0,0]')),
    "no elements of a huge size": with_length(
        one(f'"dtype":"F32","shape":[0,{2**64 - 1}],"data_offsets":[0,0]')
    ),
    "no elements between others": with_length(two(u8(3, 3), u8(0, 3)), DATA),
    "two in a byte": with_length(one('"dtype":"F4","shape":[2],"data_offsets":[0,1]'), b"a"),
    "four in three bytes": with_length(one('"dtype":"F6_E3M2","shape":[4],"data_offsets":[0,3]'), DATA),
    "a hundred dimensions": with_length(one(U8.replace("[3]", "[3" + ",1" * 99 + "]")), DATA),
    "metadata that is null": with_length('{"__metadata__":null,"w":{' + U8 + "}}", DATA),
    "an empty name": with_length('{"":{' + U8 + "}}", DATA),
    "a name of escapes": with_length('{"\\u0000\\ud83d\\ude00\\/":{' + U8 + "}}", DATA),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_refused_with_its_own_reason(case: str) -> None:
    file, reason = MALFORMED[case]
    assert refused_by_the_package(file)
    with pytest.raises(InvalidCheckpoint) as caught:
        parse_header(file, len(file), PATH)
    assert caught.value.message.startswith("model.safetensors: ")
    assert reason in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("case", UNUSUAL)
def test_an_unusual_but_legal_file_means_what_the_package_says(case: str) -> None:
    file = UNUSUAL[case]
    header = parse_header(file, len(file), PATH)
    theirs = {name: (view["dtype"], tuple(view["shape"])) for name, view in safetensors.deserialize(file)}
    assert {info.name: (info.dtype, info.shape) for info in header.tensors.values()} == theirs


@pytest.mark.parametrize("file", [file for file, _ in MALFORMED.values()] + list(UNUSUAL.values()))
def test_opening_a_file_gives_the_verdict_of_safe_open(file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file)
    try:
        with safetensors.safe_open(path, framework="numpy") as theirs:
            names = set(theirs.keys())
    except (safetensors.SafetensorError, OSError, ValueError):
        with pytest.raises(InvalidCheckpoint):
            read_header(path)
    else:
        assert set(read_header(path).tensors) == names


@pytest.mark.parametrize("dtype", [*DTYPE_BITS, "C128", "U4", "I4", "F8", "F128", "F8_E4M3FN", ""])
def test_a_dtype_is_known_with_its_size_as_in_the_package(dtype: str) -> None:
    for n_bytes in (4, 6, 8, 16, 32, 64, 128):
        file = with_length(one(f'"dtype":"{dtype}","shape":[8],"data_offsets":[0,{n_bytes}]'), bytes(n_bytes))
        assert refused_by_the_package(file) == (DTYPE_BITS.get(dtype) != n_bytes)


def test_a_header_says_where_tensors_lie() -> None:
    file = safetensors_file({"a": ("F32", [1], b"1234"), "b": ("U8", [2, 1], b"56")})
    header = parse_header(file, len(file), PATH)
    assert header.tensors == {
        "a": TensorInfo("a", "F32", (1,), 0, 4),
        "b": TensorInfo("b", "U8", (2, 1), 4, 6),
    }
    assert file[header.data_start :] == b"123456"
    assert header.file_size == len(file)


def test_metadata_is_kept() -> None:
    file = with_length('{"__metadata__":{"format":"pt","format":"\\u00e9"}}')
    assert parse_header(file, len(file), PATH).metadata == {"format": "\u00e9"}


def test_a_header_is_parsed_from_its_bytes_alone() -> None:
    file = safetensors_file({"w": ("U8", [3], DATA)})
    n_bytes = header_length(file[:8], len(file), PATH)
    assert parse_header(file[: 8 + n_bytes], len(file), PATH) == parse_header(file, len(file), PATH)


def test_fewer_bytes_than_the_header_has_are_refused() -> None:
    file = safetensors_file({"w": ("U8", [3], DATA)})
    with pytest.raises(InvalidCheckpoint, match="ended after 12 of"):
        parse_header(file[:12], len(file), PATH)


def test_the_longest_allowed_header_is_read_and_one_byte_more_is_not() -> None:
    longest = with_length(b"{}".ljust(MAX_HEADER_BYTES))
    assert parse_header(longest, len(longest), PATH).tensors == {}
    with pytest.raises(InvalidCheckpoint, match="more than the 100000000"):
        header_length((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), MAX_HEADER_BYTES + 9, PATH)


def test_a_long_name_does_not_flood_the_message() -> None:
    file = with_length(json.dumps({"n" * 1_000_000: 1}))
    with pytest.raises(InvalidCheckpoint) as caught:
        parse_header(file, len(file), PATH)
    assert len(caught.value.message) < 500


def test_a_text_of_several_megabytes_is_checked_to_its_end() -> None:
    name = "é" * 1_500_000
    file = safetensors_file({name: ("U8", [3], DATA)})
    assert list(parse_header(file, len(file), PATH).tensors) == [name]
    raw = with_length(b'{"x' + "é".encode() * 1_500_000 + b'\xff":{}}')
    with pytest.raises(InvalidCheckpoint, match="not UTF-8 at byte 3000011"):
        parse_header(raw, len(raw), PATH)


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesMissing, match="is not there"):
        read_header(tmp_path / "model.safetensors")
