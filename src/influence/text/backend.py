"""The `tokenizers` package behind a guard.

A crafted tokenizer.json makes that package panic (a BaseException), loop in a
regular expression, grow a text a thousandfold, or hand out ids that no
embedding has. Everything here either works or raises TokenizerError, soon:

    load                 parsed, neutralised (no truncation, padding, dropout), probed
    encode, decode       one call each, guarded; encode bounded in time

A panic also prints to stderr from Rust. While a file is loaded and probed that
output is held back: dropped if a TokenizerError tells it, else passed on.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from influence.errors import InfluenceError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

T = TypeVar("T")

TOKENIZER_MAX_BYTES = 128 << 20  # Gemma 3's, the largest known, has 33 MB
_MAX_ID = 1 << 24  # 60 times the largest vocabulary known; ids size tables elsewhere
_MAX_GROWTH = 256  # how much longer a normalizer or decoder may make a text
_MAX_ADDED = 16  # special tokens that the post-processor may put around a text

# Real tokenizers take under 2 µs a character; the rest is room for a busy machine.
_ENCODE_BASE_S = 1.0
_ENCODE_PER_CHARACTER_S = 20e-6

_PROBES = ("", " ", "a", " The 42 naïve 猫\n\tsaid: \U0001f999!  it's  <s>", "a" * 64 + "!")

_stderr_lock = threading.Lock()


def load(path: Path, content: bytes) -> Backend:
    """A backend that has encoded and decoded the probes. Raises TokenizerError."""
    # The package warns on stderr about every fork once it has used its threads.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    with _stderr_held_back(), guarded(path, "can't be loaded"):
        backend = tokenizers.Tokenizer.from_buffer(content)
        neutralise(backend)
        _check_growth(path, "normalizer", _with_inner(_state(backend.normalizer), "normalizers"))
        _check_growth(path, "decoder", _with_inner(decoder_state(backend), "decoders"))
        _check_ids(path, backend)
        _check_frame(path, _state(backend.post_processor), backend.num_special_tokens_to_add(False))
        _probe(path, backend)
    return backend


def neutralise(backend: Backend) -> None:
    """Switch off what would silently cut, pad or randomise the ids of a text."""
    backend.no_truncation()
    backend.no_padding()
    if getattr(backend.model, "dropout", None) is not None:
        backend.model.dropout = None


def encode(path: Path, backend: Backend, text: str, *, add_special_tokens: bool) -> list[int]:
    """The ids of a text. Raises TokenizerError on a panic, an error, or after a time limit."""
    limit_s = _ENCODE_BASE_S + _ENCODE_PER_CHARACTER_S * len(text)
    with guarded(path, "can't encode this text"):
        # The batch call is the one that releases the GIL.
        [encoding] = _within(
            limit_s,
            lambda: backend.encode_batch_fast([text], add_special_tokens=add_special_tokens),
        )
        return list(encoding.ids)


def decode(path: Path, backend: Backend, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    """The text of ids. Raises TokenizerError on a panic or an error."""
    with guarded(path, "can't decode these tokens"):
        return backend.decode(token_ids, skip_special_tokens=skip_special_tokens)


def decoder_state(backend: Backend) -> dict[str, Any] | None:
    """The decoder as tokenizer.json writes it, None if there is none."""
    return _state(backend.decoder)


@contextmanager
def guarded(path: Path, doing: str) -> Iterator[None]:
    """Turn whatever `tokenizers` throws, panics included, into a TokenizerError."""
    try:
        yield
    except InfluenceError:
        raise
    except TimeoutError as error:
        raise TokenizerError(path, f"{doing}: it takes too long") from error
    except BaseException as error:
        is_panic = type(error).__name__ == "PanicException"
        if not is_panic and not isinstance(error, Exception):
            raise  # KeyboardInterrupt and its kin
        raise TokenizerError(
            path, f"{doing}: {str(error).splitlines()[0]:.200}" if str(error) else doing
        ) from error


def _within(limit_s: float, function: Callable[[], T]) -> T:
    """The function's result, computed in a thread that is left alone after `limit_s`.

    Rust code can't be interrupted from Python; the abandoned thread ends when
    the regular expression engine's own retry limit stops it.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # a panic is one; it is raised again below
            errors.append(error)

    thread = threading.Thread(target=work, name="influence-encode", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError
    return results[0]


def _state(component: Any) -> dict[str, Any] | None:
    """A component of the backend as the JSON that it came from."""
    if component is None:
        return None
    state: dict[str, Any] = json.loads(component.__getstate__())
    return state


def _probe(path: Path, backend: Backend) -> None:
    for text in _PROBES:
        plain = encode(path, backend, text, add_special_tokens=False)
        whole = encode(path, backend, text, add_special_tokens=True)
        decode(path, backend, whole, skip_special_tokens=False)
        decode(path, backend, plain, skip_special_tokens=True)


def _check_frame(path: Path, state: Mapping[str, Any] | None, n_added: int) -> None:
    """The post-processor puts a few special tokens around the text, once."""
    if n_added > _MAX_ADDED:
        raise TokenizerError(path, f"its post_processor adds {n_added} special tokens to every text")
    for part in _with_inner(state, "processors"):
        pieces = part["single"] if part["type"] == "TemplateProcessing" else [{"Sequence": {}}]
        if sum("Sequence" in piece for piece in pieces) != 1:
            raise TokenizerError(path, "its post_processor drops or repeats the text")


def _with_inner(state: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The parts of a component that is a sequence, or the one that it is."""
    if state is None:
        return []
    if state["type"] != "Sequence":
        return [state]
    return [part for inner in state[key] for part in _with_inner(inner, key)]


def _check_ids(path: Path, backend: Backend) -> None:
    largest = largest_id(backend)
    if largest < 0:
        raise TokenizerError(path, "its vocabulary is empty")
    if largest >= _MAX_ID:
        raise TokenizerError(path, f"it has the token id {largest}, beyond any vocabulary")


def largest_id(backend: Backend) -> int:
    """The largest token id, -1 without a token.

    Where each of the first n ids has a token, n tokens have no further one;
    only where there are gaps is the whole vocabulary made into a dict for it.
    """
    n = backend.get_vocab_size(with_added_tokens=True)
    if None not in map(backend.id_to_token, range(n)):
        return n - 1
    return max(backend.get_vocab(with_added_tokens=True).values())


def _check_growth(path: Path, what: str, parts: Sequence[Mapping[str, Any]]) -> None:
    if prod(map(_growth, parts)) > _MAX_GROWTH:
        raise TokenizerError(path, f"its {what} can make a text more than {_MAX_GROWTH} times longer")


def _growth(part: Mapping[str, Any]) -> int:
    """How many times longer a normalizer or decoder can make a text, as an upper bound."""
    match part["type"]:
        case "Replace":
            n_new, n_old = len(part["content"]), len(part["pattern"].get("String", ""))
            return max(-(-n_new // n_old), 1) if n_old else 1 + n_new  # an empty match fits everywhere
        case "Prepend":
            return 1 + len(part["prepend"])
        case "Precompiled":
            return max(_longest_replacement(part["precompiled_charsmap"]), 1)
        case _:
            return 1


def _longest_replacement(charsmap: str) -> int:
    """Bytes of the longest replacement in SentencePiece's precompiled map.

    Layout: uint32 little-endian size of the trie, the trie, then the
    replacements, each ended by a zero byte.
    """
    try:
        content = base64.b64decode(charsmap)
    except binascii.Error:
        return 1  # `tokenizers` has refused it already
    trie_size = int.from_bytes(content[:4], "little")
    return max(map(len, content[4 + trie_size :].split(b"\0")))


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Collect what is written to file descriptor 2; pass it on unless a TokenizerError is raised."""
    with _stderr_lock, _nameless_file() as held:
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, ValueError):  # there is no stderr: nothing to keep quiet
            yield
            return
        try:
            os.dup2(held.fileno(), 2)
            yield
        except TokenizerError:
            held.truncate(0)
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            _pass_on(held.fileno())


def _nameless_file() -> BinaryIO:
    """An empty file that goes when it is closed; in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    import tempfile

    return tempfile.TemporaryFile()


def _pass_on(descriptor: int) -> None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with suppress(OSError):  # a closed pipe at stderr is not our error
        while chunk := os.read(descriptor, 1 << 16):
            os.write(2, chunk)
