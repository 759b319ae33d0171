"""Tokenizer files that are damaged, or made to do damage: a clear error, soon, and a quiet stderr."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence.errors import InfluenceError, TokenizerError
from influence.text import backend
from influence.text.tokenizer import Tokenizer
from support.made_tokenizers import added_token, adds_before, spm, tokenizer_json, write

LIMIT_S = 5.0  # a second is the promise; the rest is for a busy machine


def splits_by(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def in_sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(parts)}


def precompiled(replacement: bytes) -> dict[str, Any]:
    charsmap = (4).to_bytes(4, "little") + bytes(4) + replacement + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}


UNKNOWN_SPECIAL = {**adds_before(0, "<x>"), "special_tokens": {}}
REPEATED = {**adds_before(0, "a"), "single": [*adds_before(0, "a")["single"]] * 1000}

TEXT_PART = {"Sequence": {"id": "A", "type_id": 0}}
REPEATED_TEXT = {**adds_before(0, "a"), "single": [TEXT_PART] * 1000}
NO_TEXT = {**adds_before(0, "a"), "single": adds_before(0, "a")["single"][:1]}

HOSTILE: dict[str, dict[str, Any]] = {
    "a merge longer than any word": tokenizer_json(merges=[["a", "bbbb"]]),
    "a prefix longer than its words": tokenizer_json(continuing_subword_prefix="######"),
    "an unknown token around the text": tokenizer_json(post_processor=UNKNOWN_SPECIAL),
    "a thousand special tokens around the text": tokenizer_json(post_processor=REPEATED),
    "the text a thousand times": tokenizer_json(post_processor=REPEATED_TEXT),
    "the text nowhere": tokenizer_json(post_processor=NO_TEXT),
    "an exponential regex": tokenizer_json(pre_tokenizer=splits_by("(a|a)*$")),
    "an exponential normalizer regex": tokenizer_json(normalizer=replace({"Regex": "(a+)+$"}, "b")),
    "deeply nested groups": tokenizer_json(pre_tokenizer=splits_by("(" * 10**5 + ")" * 10**5)),
    "the largest id": tokenizer_json(vocab={"a": 2**32 - 1, "b": 1, "ab": 2}),
    "an id beyond 32 bits": tokenizer_json(vocab={"a": 2**32, "b": 1, "ab": 2}),
    "a negative id": tokenizer_json(vocab={"a": -1, "b": 1, "ab": 2}),
    "no words": tokenizer_json(vocab={}, merges=[]),
    "words that double thirty times": tokenizer_json(
        normalizer=in_sequence(*[replace({"String": "a"}, "aa")] * 30)
    ),
    "a megabyte for nothing": tokenizer_json(normalizer=replace({"String": ""}, "a" * 10**6)),
    "a megabyte before the text": tokenizer_json(normalizer={"type": "Prepend", "prepend": "a" * 10**6}),
    "a decoder that grows text": tokenizer_json(decoder=replace({"Regex": "a?"}, "a" * 1000)),
    "a broken character map": tokenizer_json(
        normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "a character map that grows text": tokenizer_json(normalizer=precompiled(b"x" * 10**5)),
    "pieces of no length": tokenizer_json(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "a decoder that strips too much": tokenizer_json(
        decoder={"type": "Strip", "content": "a", "start": 0, "stop": 9}
    ),
    "an unknown model": {**tokenizer_json(), "model": {"type": "Oracle"}},
    "no model": {"version": "1.0"},
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_a_hostile_tokenizer_is_an_error_that_names_the_file(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    started = time.monotonic()
    with pytest.raises(TokenizerError, match=r"tokenizer\.json") as caught:
        Tokenizer.load(write(tmp_path, HOSTILE[name]))
    assert time.monotonic() - started < LIMIT_S
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert capfd.readouterr().err == ""


def test_a_prompt_that_the_probes_did_not_foresee_is_an_error_too(tmp_path: Path) -> None:
    made = tokenizer_json(vocab={"q": 0, "!": 1}, merges=[], pre_tokenizer=splits_by("(q|q)*$"))
    tokenizer = Tokenizer.load(write(tmp_path, made))
    assert tokenizer.encode("qqq") == [0, 0, 0]
    started = time.monotonic()
    with pytest.raises(TokenizerError, match="can't encode this text"):
        tokenizer.encode("q" * 60 + "!")
    assert time.monotonic() - started < LIMIT_S
    assert tokenizer.encode("q") == [0]


def test_encoding_stops_waiting_after_its_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tokenizer_json(vocab={"q": 0, "!": 1}, merges=[], pre_tokenizer=splits_by("(q|q)*$"))
    tokenizer = Tokenizer.load(write(tmp_path, made))
    monkeypatch.setattr(backend, "_ENCODE_BASE_S", 0.001)
    monkeypatch.setattr(backend, "_ENCODE_PER_CHARACTER_S", 0.0)
    with pytest.raises(TokenizerError, match="takes too long"):
        tokenizer.encode("q" * 60 + "!")


def test_a_long_text_is_no_attack(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write(tmp_path, spm(None)))
    assert len(tokenizer.encode("ab " * 100_000)) > 100_000


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe{\x00}\x00", b"[" * 100_000, b"{}", b"\x00" * 100, b'{"model": 1}'],
)
def test_a_tokenizer_that_is_not_one_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_every_truncation_of_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    whole = json.dumps(spm(None)).encode()
    for part in range(64):
        (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) * part // 64])
        with pytest.raises(TokenizerError):
            Tokenizer.load(tmp_path)


@settings(
    derandomize=True,
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_one_changed_byte_is_an_error_of_ours_or_none(tmp_path: Path, position: int, byte: int) -> None:
    content = bytearray(json.dumps(tokenizer_json(added_tokens=[added_token(3, "<s>")])).encode())
    content[position % len(content)] = byte
    (tmp_path / "tokenizer.json").write_bytes(content)
    try:
        tokenizer = Tokenizer.load(tmp_path)
        assert isinstance(tokenizer.encode("ab <s>"), list)
    except InfluenceError as error:
        assert "tokenizer.json" in error.message


CONFIGS: list[Any] = [
    [],
    {"bos_token": 1},
    {"bos_token": {"text": "<s>"}},
    {"added_tokens_decoder": []},
    {"added_tokens_decoder": {"x": {"content": "a"}}},
    {"added_tokens_decoder": {"-1": {"content": "a"}}},
    {"added_tokens_decoder": {"9" * 5000: {"content": "a"}}},
    {"added_tokens_decoder": {"1": "a"}},
    {"additional_special_tokens": [1]},
]


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_a_config_that_can_not_be_understood_is_named(tmp_path: Path, config: Any) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        Tokenizer.load(write(tmp_path, tokenizer_json(), tokenizer_config=config))


@pytest.mark.parametrize("config", [b"{", b"\xff\xfe{\x00", b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"])
def test_a_config_that_is_not_json_is_named(tmp_path: Path, config: bytes) -> None:
    write(tmp_path, tokenizer_json())
    (tmp_path / "tokenizer_config.json").write_bytes(config)
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_pipe_a_device_and_a_folder_are_refused_without_waiting(tmp_path: Path, name: str) -> None:
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir):
        write(tmp_path, tokenizer_json())
        (tmp_path / name).unlink(missing_ok=True)
        make(tmp_path / name)
        with pytest.raises(TokenizerError, match=f"{name}: is not a regular file"):
            Tokenizer.load(tmp_path)
        (tmp_path / name).rmdir() if (tmp_path / name).is_dir() else (tmp_path / name).unlink()


def test_a_file_larger_than_any_tokenizer_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TokenizerError, match="larger than 128 MiB"):
        Tokenizer.load(tmp_path)


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(TokenizerError, match="can't be read"):
        Tokenizer.load(tmp_path)


_SPEAKS_WHILE_LOADING = """
import os, sys
from pathlib import Path
from influence.text import backend
inner = backend.neutralise
def neutralise(tokenizer):
    os.write(2, b"from another thread")
    inner(tokenizer)
backend.neutralise = neutralise
backend.load(Path("tokenizer.json"), sys.stdin.buffer.read())
"""


def test_what_others_write_to_stderr_during_a_load_is_not_lost() -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", _SPEAKS_WHILE_LOADING],
        input=json.dumps(tokenizer_json()).encode(),
        env={**os.environ, "PYTHONPATH": str(source)},
        stderr=subprocess.PIPE,
        check=True,
    )
    assert done.stderr == b"from another thread"


def test_a_load_works_without_a_stderr() -> None:
    source = Path(__file__).resolve().parents[2] / "src"
    code = _SPEAKS_WHILE_LOADING.replace('os.write(2, b"from another thread")', "pass")
    done = subprocess.run(
        [sys.executable, "-c", "import os; os.close(2)\n" + code],
        input=json.dumps(tokenizer_json()).encode(),
        env={**os.environ, "PYTHONPATH": str(source)},
        check=False,
    )
    assert done.returncode == 0
