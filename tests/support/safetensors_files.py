"""Writes safetensors files, right ones and wrong ones, without the code under test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from random import Random

BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "BOOL": 8,
    "U8": 8,
    "F8_E4M3": 8,
    "F16": 16,
    "BF16": 16,
    "F32": 32,
    "C64": 64,
    "I64": 64,
}


def with_length(header: str | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header and data; `length` replaces the true length of the header."""
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def safetensors_file(tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> bytes:
    """A sound file of name -> (dtype, shape, data)."""
    header: dict[str, object] = {}
    position = 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position = offsets[1]
    text = json.dumps(header)
    return with_length(text + " " * (-len(text) % 8), b"".join(data for _, _, data in tensors.values()))


class Mutant:
    """A small safetensors file with up to three faults, each drawn from `random`.

    Faults go in where a reader decides: values, fields, entries, the text of the
    header, its length, the size of the data.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.entries: list[list[str]] = []  # key and value, as JSON text
        self.position = 0
        for i in range(random.randint(0, 3)):
            self.entries.append([json.dumps(f"t{i}"), self._sound_tensor()])
        if random.random() < 0.2:
            self.entries.insert(0, ['"__metadata__"', '{"format":"pt"}'])
        random.shuffle(self.entries)

    def bytes(self) -> bytes:
        random = self.random
        n_faults = random.randint(0, 3)
        for _ in range(n_faults):
            if self.entries:
                random.choice(
                    [self._change_number, self._change_value, self._change_entry, self._no_change]
                )()
        space = random.choice(["", "", "", " ", "\n\t\r"])
        text = space + "{" + ("," + space).join(":".join(entry) for entry in self.entries) + "}" + space
        header = text.encode("utf-8", "surrogatepass")
        if n_faults and random.random() < 0.4:
            header = self._change_text(header)
        data_size, length = max(self.position, 0), len(header)
        if n_faults and random.random() < 0.15:
            data_size = max(data_size + random.choice([-1, 1, 4, -4]), 0)
        if n_faults and random.random() < 0.1:
            length = random.choice([0, 1, 7, 8, length - 1, length + 1, 10**8, 10**8 + 1, 2**63, 2**64 - 1])
        whole = with_length(header, bytes(i % 251 for i in range(data_size)), length=max(length, 0))
        return whole[: random.randint(0, len(whole))] if random.random() < 0.05 else whole

    def _sound_tensor(self) -> str:
        random = self.random
        dtype = random.choice(list(BITS))
        shape = [random.choice([0, 1, 2, 4, 8]) for _ in range(random.randint(0, 3))]
        if BITS[dtype] < 8:
            shape.append(4)  # whole bytes
        n_bits = BITS[dtype]
        for size in shape:
            n_bits *= size
        begin, self.position = self.position, self.position + n_bits // 8
        fields = [
            f'"dtype":"{dtype}"',
            f'"shape":{json.dumps(shape)}',
            f'"data_offsets":[{begin},{self.position}]',
        ]
        if random.random() < 0.3:
            random.shuffle(fields)
        return "{" + ",".join(fields) + "}"

    def _no_change(self) -> None:
        """So that a sound file, or one wrong only in its frame, is common too."""

    def _change_number(self) -> None:
        entry = self.random.choice(self.entries)
        starts = [i for i, character in enumerate(entry[1]) if character in "0123456789"]
        if starts:
            at = self.random.choice(starts)
            entry[1] = entry[1][:at] + self.random.choice(NUMBERS) + entry[1][at + 1 :]

    def _change_value(self) -> None:
        entry = self.random.choice(self.entries)
        for before, choices in REPLACEMENTS:
            if before in entry[1] and self.random.random() < 0.5:
                entry[1] = entry[1].replace(before, self.random.choice(choices), 1)
                return

    def _change_entry(self) -> None:
        random = self.random
        entry = random.choice(self.entries)
        kind = random.randint(0, 4)
        if kind == 0:
            self.entries.insert(random.randint(0, len(self.entries)), list(entry))
        elif kind == 1:
            entry[0] = random.choice(KEYS)
        elif kind == 2:
            entry[1] = random.choice(VALUES)
        elif kind == 3:
            self.entries.insert(
                random.randint(0, len(self.entries)), [random.choice(KEYS), random.choice(VALUES)]
            )
        else:
            self.entries.remove(entry)

    def _change_text(self, header: bytes) -> bytes:
        at = self.random.randint(0, len(header))
        n_removed = self.random.choice([0, 0, 1, 1, 2, 5])
        return header[:at] + self.random.choice(SNIPPETS) + header[at + n_removed :]


def nested(n_levels: int, opening: str = "[", closing: str = "]", core: str = "") -> str:
    return opening * n_levels + core + closing * n_levels


BIG = [2**31, 2**32, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**19, 10**20, 10**400]
NUMBERS = [
    *map(str, BIG),
    *("0", "1", "2", "3", "4", "7", "8", "16", "-1", "-0", "00", "01", "1.0", "1e0", "1E+2", "1e-1", "0.5"),
    *(
        "1.",
        ".5",
        "+1",
        "1e",
        "0x1",
        "1_0",
        "1e308",
        "1e309",
        "-1e309",
        "0e999",
        "1e-999",
        "1e99999999999999999999",
    ),
    *("1.7976931348623157e308", "1.7976931348623158e308", "17976931348623157" + "0" * 292),
    *(
        "0." + "0" * 330 + "1e640",
        "1" + "0" * 330 + "e-330",
        "18446744073709551615",
        "18446744073709551616.5e289",
    ),
    *("null", "true", "NaN", "Infinity", "-Infinity", '"1"', "[]", "{}", "", "1,1", "1,", ",1", " 1 ", "[1]"),
]
TENSOR = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
VALUES = [
    *("null", "0", "1e400", '""', "[]", "{}", "true", "[{}]", TENSOR, TENSOR[:-1], TENSOR + "}"),
    *('["U8",[0],[0,0]]', '["U8",[0],[0,0],0]', '["U8",[0]]', '[[0],"U8",[0,0]]', '["U8",[0],[0,0],]'),
    '{"dtype":{"U8":null},"shape":[0],"data_offsets":[0,0]}',
    '{"dtype":{"U8":{}},"shape":[0],"data_offsets":[0,0]}',
    '{"dtype":{"U8":null,"U8":null},"shape":[0],"data_offsets":[0,0]}',
    '{"dtype":{},"shape":[0],"data_offsets":[0,0]}',
    '{"format":"pt"}',
    '{"format":"pt","format":"np"}',
    '{"format":null}',
    '{"format":1}',
    '{"a":"\\ud83d\\ude00"}',
    '{"a":"\\ud83d"}',
]
KEYS = [
    *('"t0"', '"t1"', '"t2"', '""', '"__metadata__"', '"\\u005f_metadata__"', '"__metadata__ "', '"\\u0000"'),
    *(
        '"\\ud83d\\ude00"',
        '"\\ude00"',
        '"\\ud83d"',
        '"\\uD83Dx"',
        '"\\x"',
        '"\\v"',
        '"\\/\\b\\f\\n\\r\\t\\"\\\\"',
    ),
    *(
        '"\x01"',
        '"\x7f"',
        '"é"',
        '"\U0001f600"',
        '"\ud800"',
        "t0",
        "'t0'",
        "null",
        "1",
        '"a" "b"',
        '"\ufeff"',
    ),
]
EXTRAS = [
    *(
        '"x":0,',
        '"x":null,"x":1,',
        '"":{"y":[1,{"z":[]}]},',
        '"x":1e400,',
        '"x":-0.0e-5,',
        '"x":tru,',
        '"x":"\\ud800",',
    ),
    *(
        '"x":[1,],',
        '"x":{"y":1,},',
        '"x":{1:1},',
        '"x":[1 1],',
        '"x":"\t",',
        '"x":NaN,',
        '"x":{"y"},',
        '"x":-,',
        '"x":01,',
    ),
    *(f'"x":{nested(n)},' for n in (5, 124, 125, 126, 127, 128, 5000)),
    *(f'"x":{nested(n, "{" + chr(34) * 2 + ":", "}", "0")},' for n in (125, 126, 3000)),
]
REPLACEMENTS: list[tuple[str, list[str]]] = [
    (
        '"dtype":',
        [
            '"dtype": ',
            '"dtyp":',
            '"dtype"',
            '"\\u0064type":',
            '"dtype":"U8","dtype":',
            '"DTYPE":',
            *(e + '"dtype":' for e in EXTRAS),
        ],
    ),
    (
        '"shape":',
        [
            '"shape" :',
            '"shap":',
            '"shape"',
            '"shape":[0],"shape":',
            '"shape":[',
            '"x":',
            *(e + '"shape":' for e in EXTRAS),
        ],
    ),
    (
        '"data_offsets":',
        [
            '"data_offset":',
            '"data_offsets":[0,0],"data_offsets":',
            '"data_offsets":[1,',
            *(e + '"data_offsets":' for e in EXTRAS),
        ],
    ),
    (
        '"F32"',
        [
            '"f32"',
            '"F16"',
            '"I32"',
            '"U32"',
            '"F33"',
            '"F32 "',
            '""',
            "11",
            "null",
            '["F32"]',
            '{"F32":null}',
            '{"F32":{}}',
            '"\\u004632"',
        ],
    ),
    (
        '"U8"',
        [
            '"BOOL"',
            '"F8_E5M2"',
            '"F8_E8M0"',
            '"F8_E4M3FNUZ"',
            '"I8"',
            '"U4"',
            '"F4"',
            '{ "U8" : null }',
            '{"U8":null,}',
            '{"U8":[]}',
            "{}",
            "[]",
        ],
    ),
    ('"F4"', ['"F6_E3M2"', '"I4"', '"U8"']),
    ('"F16"', ['"I16"', '"U16"', '"BF16"', '"F32"']),
    ('"I64"', ['"F64"', '"U64"', '"C64"', '"C128"', '"F128"']),
    ("[", ["[[", "[ ", "[\n", "", "[0,", "(", "[,"]),
    ("]", ["]]", " ]", "", ",]", ",0]", ",1]", ",2]", ")", "]x"]),
    ("{", ["{ ", "", "{{", "[", *("{" + e for e in EXTRAS)]),
    ("}", [" }", "", "}}", ",}", "]"]),
]
SNIPPETS = [
    *(
        b"",
        b"",
        b" ",
        b"\n",
        b"\0",
        b"x",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"-",
        b"0",
        b"9",
        b".",
    ),
    *(
        b"e",
        b"\x0b",
        b"\x0c",
        b"\xa0",
        b"\xc2\xa0",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
    ),
    *(
        b"\xc3\xa9",
        b"\xc3",
        b"/**/",
        b"//",
        b"null",
        b"\\u0041",
        b"\\ud800",
        b"\xe2\x80\xa8",
        b"[" * 200,
        b"1e400",
    ),
]
