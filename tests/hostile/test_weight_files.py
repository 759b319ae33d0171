"""Weight files that are cut, huge, or no files at all: an error that names them, at once, at no cost."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors

from influence.errors import InfluenceError, InvalidCheckpoint
from influence.weights.checkpoint import Checkpoint
from influence.weights.safetensors import MAX_HEADER_BYTES
from support.safetensors_files import safetensors_file

# Opens a checkpoint in a process of its own; prints the error, the seconds, and by how much the peak grew.
PROBE = """
import sys, time
from pathlib import Path
import psutil
from influence.errors import InfluenceError
from influence.weights.checkpoint import Checkpoint

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before, start = peak_bytes(), time.perf_counter()
try:
    Checkpoint.open(Path(sys.argv[1]))
    print("opened")
except InfluenceError as error:
    print(error.message.replace("\\n", " ")[-300:])
print(time.perf_counter() - start)
print(peak_bytes() - before)
"""


def probe(folder: Path) -> tuple[str, float, int]:
    """(message, seconds, bytes of growth); fails if opening takes 20 s."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
        env=environment,
    )
    message, seconds, n_bytes = done.stdout.splitlines()
    return message, float(seconds), int(n_bytes)


def test_a_file_cut_at_any_64th_is_refused_by_name(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": ("F32", [16, 4], bytes(256)) for i in range(20)}
    whole = safetensors_file(tensors)
    path = tmp_path / "model.safetensors"
    for i in range(64):
        cut = whole[: len(whole) * i // 64]
        path.write_bytes(cut)
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(cut)
        with pytest.raises(InvalidCheckpoint) as caught:
            Checkpoint.open(tmp_path)
        assert caught.value.message.startswith(str(path))
        assert "download it again" in caught.value.hint
    path.write_bytes(whole)
    assert set(Checkpoint.open(tmp_path).infos) == set(tensors)


def test_cut_real_weights_say_how_much_is_missing(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "weights/stories260K-hf/model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for i in range(1, 64):
        path.write_bytes(whole[: len(whole) * i // 64])
        with pytest.raises(InvalidCheckpoint, match="is cut short: 1040128 bytes of tensors, of which"):
            Checkpoint.open(tmp_path)


def sparse(path: Path, prefix: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(prefix)
        file.truncate(size)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("length", "size"),
    [
        (0, 8),
        (7, 12),
        (MAX_HEADER_BYTES, 9),
        (MAX_HEADER_BYTES + 1, 200_000_000),
        (2**40, 2**40 + 8),
        (2**63, 200_000_000),
        (2**64 - 1, 200_000_000),
    ],
)
def test_a_lie_about_the_length_costs_nothing(length: int, size: int, tmp_path: Path) -> None:
    try:
        sparse(tmp_path / "model.safetensors", length.to_bytes(8, "little"), size)
    except OSError:
        pytest.skip("this file system has no file of a terabyte")
    message, seconds, n_bytes = probe(tmp_path)
    assert "model.safetensors" in message
    assert seconds < 1
    assert n_bytes < 10_000_000


FILLER = '{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":'


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    ("opening", "repeated", "reason"),
    [
        ("", "\0", "expected an object"),
        ("", " ", "expected an object"),
        ('{"', "n", "expected a key"),
        ('{"', "é", "expected a key"),
        (FILLER, "[", "127 levels"),
        (FILLER, '{"":', "127 levels"),
        (FILLER, "9", "out of range"),
        (FILLER + "0.", "0", "expected ','"),
        (FILLER + "1e", "9", "out of range"),
    ],
)
def test_a_header_of_100_mb_costs_no_more_than_itself(
    opening: str, repeated: str, reason: str, tmp_path: Path
) -> None:
    n_bytes = MAX_HEADER_BYTES - len(opening)
    filling = repeated.encode()
    header = opening.encode() + filling * (n_bytes // len(filling))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
    message, seconds, growth = probe(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert reason in message
    assert seconds < 10  # a tenth of it on an idle machine
    assert growth < 1.1 * MAX_HEADER_BYTES


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_values_that_nobody_asked_for_are_not_built(tmp_path: Path) -> None:
    """As Python lists these would be thirty times the header."""
    header = (FILLER + "[" + "[]," * 500_000 + "[]]}}").encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    message, _, growth = probe(tmp_path)
    assert message == "opened"
    assert growth < 5 * len(header)


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, tempfile.TemporaryDirectory(dir="/tmp") as short:
        server.bind(f"{short}/s")  # the path of a socket is short
        Path(f"{short}/s").rename(path)


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_tty(path: Path) -> None:
    path.symlink_to("/dev/tty")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_pipe, "is a named pipe, not a file"),
        (make_socket, "is a socket, not a file"),
        (link_to_zero, "is a device, not a file"),
        (link_to_tty, "is a device, not a file"),
        (Path.mkdir, "is a folder, not a file"),
        (link_to_itself, "can't be opened"),
        (link_to_nothing, "is not there"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_what_is_no_file_is_refused_without_waiting(make, reason: str, name: str, tmp_path: Path) -> None:
    make(tmp_path / name)
    start = time.perf_counter()
    with pytest.raises(InfluenceError) as caught:
        Checkpoint.open(tmp_path)
    assert time.perf_counter() - start < 1
    assert f"{name}: {reason}" in caught.value.message


@contextmanager
def as_ordinary_user() -> Iterator[None]:
    """Root may read everything: for the time of a block it is nobody."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_file_that_may_not_be_read_says_how_to_allow_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        path = folder / "model.safetensors"
        path.write_bytes(safetensors_file({"w": ("U8", [1], b"x")}))
        path.chmod(0)
        with as_ordinary_user(), pytest.raises(InvalidCheckpoint, match="may not be read") as caught:
            Checkpoint.open(folder)
        assert "chmod" in caught.value.hint


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_a_folder_that_may_not_be_listed_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0)
        with as_ordinary_user(), pytest.raises(InfluenceError, match="can't be listed"):
            Checkpoint.open(Path(name))
