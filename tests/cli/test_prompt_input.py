"""The prompt from standard input."""

from __future__ import annotations

import io
import sys

import pytest

from influence.cli import prompt_input
from influence.cli.failure import BadUsage
from influence.cli.prompt_input import read_prompt


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_an_argument_is_the_prompt() -> None:
    assert read_prompt("Once upon\n") == "Once upon\n"


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b"Once", "Once"),
        (b"Once\n", "Once"),
        (b"Once\r\n", "Once"),
        (b"Once\n\n", "Once\n"),
        (b"a\nb\r", "a\nb\r"),
        (b"", ""),
        ("Grüße €".encode(), "Grüße €"),
    ],
)
def test_a_dash_reads_standard_input_without_its_last_newline(
    monkeypatch: pytest.MonkeyPatch, data: bytes, prompt: str
) -> None:
    give_stdin(monkeypatch, data)
    assert read_prompt("-") == prompt


def test_bytes_that_are_not_utf8_are_named_by_their_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"abc\xffdef")
    with pytest.raises(BadUsage, match="byte 3 is 0xff"):
        read_prompt("-")


def test_the_longest_prompt_passes_and_one_byte_more_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_input, "MAX_PROMPT_BYTES", 10)
    give_stdin(monkeypatch, b"x" * 10)
    assert read_prompt("-") == "x" * 10
    give_stdin(monkeypatch, b"x" * 11)
    with pytest.raises(BadUsage, match="longer than 10 bytes"):
        read_prompt("-")


def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadUsage, match="closed"):
        read_prompt("-")
