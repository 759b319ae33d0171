"""JSON of unknown origin is read typed and loud, and never waits or allocates for it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from influence.errors import InvalidConfig, ModelFilesMissing, UnsupportedModel
from influence.models.config import MAX_JSON_BYTES, Config

TEXT = '{"a": 1,\r\n "b": "ö"}'


def config(**values: object) -> Config:
    return Config(values, Path("config.json"))


def write(folder: Path, data: bytes) -> Path:
    path = folder / "config.json"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_unicode_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    loaded = Config.load(write(tmp_path, TEXT.encode(encoding)))
    assert (loaded.integer("a"), loaded.text("b")) == (1, "ö")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\xff",
        b"{",
        b"[1, 2]",
        b"null",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": 1} trailing',
        "{“a”: 1}".encode(),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_what_is_not_a_json_object_is_an_error_that_names_the_file(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Config.load(write(tmp_path, data))
    assert str(tmp_path / "config.json") in caught.value.message
    assert len(caught.value.message) < 400


def test_a_missing_file_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesMissing, match=r"there is no config\.json"):
        Config.load(tmp_path / "config.json")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    started = time.monotonic()
    with pytest.raises(InvalidConfig, match=str(MAX_JSON_BYTES)):
        Config.load(path)
    assert time.monotonic() - started < 1


def test_a_fifo_a_device_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    started = time.monotonic()
    for name in ("fifo", "folder", "device"):
        with pytest.raises(InvalidConfig, match="not a regular file"):
            Config.load(tmp_path / name)
    assert time.monotonic() - started < 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = write(tmp_path, b"{}")
    path.chmod(0)
    with pytest.raises(InvalidConfig, match="Permission denied"):
        Config.load(path)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    write(tmp_path, b'{"a": 2}')
    (tmp_path / "link").symlink_to(tmp_path / "config.json")
    assert Config.load(tmp_path / "link").integer("a") == 2


@pytest.mark.parametrize("value", [0, -1, 10**12, 10**4000, 1.0, "64", None, True, [1], {}])
def test_an_integer_is_an_integer_in_its_range(value: object) -> None:
    with pytest.raises(InvalidConfig, match="hidden_size") as caught:
        config(hidden_size=value).integer("hidden_size", maximum=1 << 20)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -(10**400), "1", None, False, [1.0]])
def test_a_number_is_finite(value: object) -> None:
    with pytest.raises(InvalidConfig, match="eps"):
        config(eps=value).number("eps")


def test_a_number_keeps_its_bounds() -> None:
    assert config(eps=2).number("eps", minimum=2, maximum=2, above=1) == 2.0
    for bounds in ({"minimum": 3.0}, {"maximum": 1.0}, {"above": 2.0}):
        with pytest.raises(InvalidConfig, match="eps: is 2"):
            config(eps=2).number("eps", **bounds)


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_a_flag_is_true_or_false(value: object) -> None:
    with pytest.raises(InvalidConfig, match="tied: must be true or false"):
        config(tied=value).flag("tied", False)


def test_absent_takes_the_default_and_null_does_not() -> None:
    assert config().integer("n", 7) == 7
    assert config().optional_integer("n", 7) == 7
    assert config(n=None).optional_integer("n", 7) is None
    assert config(n=None).optional_number("n", 7.0) is None
    with pytest.raises(InvalidConfig, match="n: must be an integer, not null"):
        config(n=None).integer("n", 7)
    with pytest.raises(InvalidConfig, match="n: is missing"):
        config().integer("n")


def test_an_error_inside_a_section_names_the_whole_path() -> None:
    section = config(rope={"factor": "x"}).section("rope")
    assert section is not None
    with pytest.raises(InvalidConfig, match=r"rope\.factor: must be a number, not a string"):
        section.number("factor")


def test_require_refuses_what_was_not_assumed() -> None:
    config(act="silu").require("act", "silu")
    config(act=None).require("act", "silu")
    config().require("act", "silu")
    with pytest.raises(UnsupportedModel, match="act is 'relu', but only 'silu' is supported"):
        config(act="relu").require("act", "silu")


def test_values_of_an_error_are_short(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"act": "x" * 100_000}).encode())
    with pytest.raises(UnsupportedModel) as caught:
        Config.load(path).require("act", "silu")
    assert len(caught.value.message) < 400
