"""The decoders of the `tokenizers` package in incremental form.

Each of those decoders maps a list of tokens to a list of tokens whose join is
the text. A stage does the same one token at a time, and returns an output token
as soon as no later input can change it. The rules were read off the package's
behaviour (decoders/*.rs) and are tested against it on random tokens.

    decoder          depends on                     stage
    Replace, Strip   the token alone                EachAlone
    Metaspace        whether it is the first        FirstDiffers
    WordPiece        whether it is the first        FirstDiffers
    BPEDecoder       whether it is the last         LastDiffers
    ByteFallback     the run of byte tokens         ByteRuns
    ByteLevel        bytes of unfinished characters ByteText
    Fuse             (makes one token of all)       none; then Strip is StripStart
    no decoder       whether it is the first        Spaced
    anything else    everything                     AtTheEnd
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tokenizers.decoders import Decoder


class Stage(Protocol):
    """One decoder, incrementally."""

    def push(self, token: str) -> list[str]:
        """The output tokens that this input makes certain."""

    def flush(self) -> list[str]:
        """The outputs that were held back, at the end."""


class EachAlone:
    """A decoder that treats every token by itself."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def push(self, token: str) -> list[str]:
        return [self._decoder.decode([token])]

    def flush(self) -> list[str]:
        return []


class FirstDiffers:
    """A decoder that treats the first token in a way of its own."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._before: list[str] = []  # stands for all that came before; adds no text

    def push(self, token: str) -> list[str]:
        text = self._decoder.decode([*self._before, token])
        self._before = [""]
        return [text]

    def flush(self) -> list[str]:
        return []


class LastDiffers:
    """A decoder that treats the last token in a way of its own: one token is held back."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._held: list[str] = []

    def push(self, token: str) -> list[str]:
        certain = [self._decoder.decode([*self._held, ""])] if self._held else []
        self._held = [token]
        return certain

    def flush(self) -> list[str]:
        held, self._held = self._held, []
        return [self._decoder.decode(held)] if held else []


class ByteRuns:
    """ByteFallback: a run of tokens like <0xE4> is text if all of it is UTF-8, else U+FFFD for each byte."""

    # Two digits as Rust's u8::from_str_radix takes them, which allows a plus sign.
    _BYTE_TOKEN = re.compile(r"<0x(\+[0-9A-Fa-f]|[0-9A-Fa-f]{2})>")

    def __init__(self) -> None:
        self._run = bytearray()

    def push(self, token: str) -> list[str]:
        byte = self.byte_of(token)
        if byte is None:
            return [*self.flush(), token]
        self._run.append(byte)
        return []

    def byte_of(self, token: str) -> int | None:
        """The byte that a token stands for, None if it is none of those."""
        matched = self._BYTE_TOKEN.fullmatch(token)
        return int(matched[1], 16) if matched else None

    def flush(self) -> list[str]:
        if not self._run:
            return []
        run, self._run = self._run, bytearray()
        try:
            return [run.decode("utf-8")]
        except UnicodeDecodeError:
            return ["\ufffd" * len(run)]


class ByteText:
    """ByteLevel: the characters of a token stand for bytes, all bytes together are UTF-8 text.

    A token with a character outside that alphabet (an added token) stands for itself.
    """

    def __init__(self) -> None:
        self._unfinished = b""  # at most 3 bytes

    def push(self, token: str) -> list[str]:
        content = self._unfinished + self.bytes_of(token)
        text, n_read = codecs.utf_8_decode(content, "replace", False)
        self._unfinished = content[n_read:]
        return [text]

    def bytes_of(self, token: str) -> bytes:
        """The bytes that a token stands for."""
        try:
            return bytes(map(_BYTE_OF_CHARACTER.__getitem__, token))
        except KeyError:
            return token.encode("utf-8")

    def flush(self) -> list[str]:
        text, _ = codecs.utf_8_decode(self._unfinished, "replace", True)
        self._unfinished = b""
        return [text]


class StripStart:
    """Strip on the fused text: up to `n_most` of a character go from its start."""

    def __init__(self, character: str, n_most: int) -> None:
        self._character = character
        self._n_left = n_most

    def push(self, token: str) -> list[str]:
        while self._n_left and token.startswith(self._character):
            token = token[1:]
            self._n_left -= 1
        if token:
            self._n_left = 0
        return [token]

    def flush(self) -> list[str]:
        return []


class Spaced:
    """No decoder at all: tokens joined by spaces."""

    def __init__(self) -> None:
        self._separator = ""

    def push(self, token: str) -> list[str]:
        text = self._separator + token
        self._separator = " "
        return [text]

    def flush(self) -> list[str]:
        return []


class AtTheEnd:
    """Any decoder: exact because it waits for everything."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._tokens: list[str] = []

    def push(self, token: str) -> list[str]:
        self._tokens.append(token)
        return []

    def flush(self) -> list[str]:
        tokens, self._tokens = self._tokens, []
        return [self._decoder.decode(tokens)]


class Chain:
    """Stages one after another; from a token to text."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages

    def push(self, token: str) -> str:
        tokens = [token]
        for stage in self.stages:
            tokens = [output for given in tokens for output in stage.push(given)]
        return "".join(tokens)

    def flush(self) -> str:
        tokens: list[str] = []
        for stage in self.stages:
            tokens = [output for given in tokens for output in stage.push(given)] + stage.flush()
        return "".join(tokens)


def make_chain(decoder: Decoder | None, state: Mapping[str, Any] | None) -> Chain:
    """The chain for a decoder and its description in tokenizer.json (None: no decoder)."""
    if decoder is None or state is None:
        return Chain([Spaced()])
    stages: list[Stage] = []
    is_fused = False
    for part in _parts(state):
        stage = _fused_stage(part) if is_fused else _stage(part)
        if stage is None and part["type"] != "Fuse":
            return Chain([AtTheEnd(decoder)])
        if stage is not None:
            stages.append(stage)
        is_fused = is_fused or part["type"] in ("Fuse", "ByteLevel")
    return Chain(stages)


def _parts(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    return [part for inner in state["decoders"] for part in _parts(inner)]


def _stage(part: Mapping[str, Any]) -> Stage | None:
    """The stage for a decoder that sees single tokens, None if there is none."""
    from tokenizers import decoders

    match part["type"]:
        case "Replace":
            return EachAlone(_replace(part))
        case "Strip":
            return EachAlone(decoders.Strip(part["content"], part["start"], part["stop"]))
        case "Metaspace":
            return FirstDiffers(decoders.Metaspace(part["replacement"], part["prepend_scheme"]))
        case "WordPiece":
            return FirstDiffers(decoders.WordPiece(part["prefix"], part["cleanup"]))
        case "BPEDecoder":
            return LastDiffers(decoders.BPEDecoder(part["suffix"]))
        case "ByteFallback":
            return ByteRuns()
        case "ByteLevel":
            return ByteText()
        case _:
            return None


def _fused_stage(part: Mapping[str, Any]) -> Stage | None:
    """The stage for a decoder that sees all text as one token, None if it can't be cut into pieces."""
    if part["type"] == "Strip" and part["stop"] == 0:
        return StripStart(part["content"], part["start"])
    if part["type"] == "Replace" and len(part["pattern"].get("String", "")) == 1:
        return EachAlone(_replace(part))
    return None


def _replace(part: Mapping[str, Any]) -> Decoder:
    from tokenizers import Regex, decoders

    pattern = part["pattern"]
    found = pattern["String"] if "String" in pattern else Regex(pattern["Regex"])
    return decoders.Replace(found, part["content"])


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's map of characters to bytes: printable Latin-1 as itself, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF_CHARACTER = _byte_alphabet()
