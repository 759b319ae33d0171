"""Downloads as real processes: signals, two at once, and what the next run finds (D2, D39, D46)."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.cli import command, environment, run_process
from support.downloads import content_of, own_files
from support.fake_hub import FakeHub
from support.hub_models import FOLDER, NAME, published, sharded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
TOKEN = "hf_verySecretTokenOfATest"
LEAVES_WITHIN_S = 2.0
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture
def hub(fake_hub: FakeHub) -> FakeHub:
    fake_hub.add_repo(NAME, sharded())
    return fake_hub


@contextmanager
def downloading(hub: FakeHub, here: Path) -> Iterator[subprocess.Popen[str]]:
    """A running download that tells its events; killed at the latest at the end of the block."""
    running = subprocess.Popen(
        command("download", NAME, "-r", hub.url, "--json"),
        cwd=here,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def events(running: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert running.stdout is not None
    return map(json.loads, running.stdout)


def wait_for_bytes(running: subprocess.Popen[str], n_bytes: int) -> None:
    next(event for event in events(running) if event.get("done_bytes", 0) >= n_bytes)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_ends_it_in_time_and_the_same_command_goes_on_d46(
    hub: FakeHub, tmp_path: Path, name: str
) -> None:
    hub.mode("stall", path="*-00002-*", at=1_500_000)
    with downloading(hub, tmp_path) as running:
        wait_for_bytes(running, 4_000_000)
        began = time.monotonic()
        running.send_signal(getattr(signal, name))
        rest = list(events(running))
        code = running.wait(10)
        assert time.monotonic() - began < LEAVES_WITHIN_S
        assert (code, running.stderr and running.stderr.read()) == (SIGNALS[name], "")
    assert "the same command goes on" in rest[-1]["text"]
    assert content_of(tmp_path / FOLDER) == {}
    check_the_same_command_goes_on(hub, tmp_path)


def check_the_same_command_goes_on(hub: FakeHub, here: Path) -> None:
    """Nothing that was whole comes again, and everything is right."""
    hub.clear_modes()
    before = hub.bytes_served
    done = run_process("download", NAME, "-r", hub.url, "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout.splitlines()[0])
    assert planned["kept_bytes"] >= 4_000_000
    index_bytes = len(published(hub)["model.safetensors.index.json"])
    # The index is read once more, before the weights; the small files may be here already.
    assert hub.bytes_served - before <= planned["total_bytes"] - planned["kept_bytes"] + index_bytes
    assert own_files(here / FOLDER) == {"manifest.json", "lock"}
    here_now, there = content_of(here / FOLDER), published(hub)
    assert here_now == {path: there[path] for path in here_now} and len(here_now) == 6


def test_a_killed_one_leaves_its_bytes_to_the_next_d2(hub: FakeHub, tmp_path: Path) -> None:
    hub.mode("stall", path="*-00002-*", at=1_500_000)
    with downloading(hub, tmp_path) as running:
        wait_for_bytes(running, 4_000_000)
        running.kill()
    check_the_same_command_goes_on(hub, tmp_path)


def test_a_second_process_waits_and_says_so_and_nothing_comes_twice_d39(hub: FakeHub, tmp_path: Path) -> None:
    hub.mode("stall", path="*-00002-*", at=1_500_000)
    with downloading(hub, tmp_path) as first:
        wait_for_bytes(first, 4_000_000)
        with downloading(hub, tmp_path) as second:
            waiting = next(event for event in events(second) if event["event"] == "waiting")
            assert "another process is downloading" in waiting["reason"]
            hub.clear_modes()
            for origin in hub.origins.values():
                origin.drop_connections()
            assert list(events(first))[-1]["event"] == "finished"
            last = list(events(second))[-1]
        assert (last["event"], last["fetched_bytes"]) == ("finished", 0)
    assert hub.bytes_served <= 1.05 * last["total_bytes"] + 1_000_000  # the block in which the line stalled


def test_without_a_terminal_there_are_lines_and_no_escapes_and_no_secret_d50(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.add_token(TOKEN)
    done = run_process("--traceback", "download", NAME, "-r", hub.url, "--token", TOKEN, cwd=tmp_path)
    assert (done.returncode, done.stdout.decode()) == (0, f"{FOLDER}\n")
    hub.mode("corrupt", path="*-00001-*", at=1)
    args = ("--traceback", "download", NAME, "-r", hub.url, "-o", "other", "--token", TOKEN)
    failed = run_process(*args, cwd=tmp_path)
    assert failed.returncode == 1
    assert b"Traceback" in failed.stderr
    said = (done.stderr + failed.stdout + failed.stderr).decode()
    assert "\x1b" not in said and TOKEN not in said and "Signature=" not in said


def test_a_token_can_be_given_where_no_list_of_processes_shows_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.add_repo("org/gated", sharded(), gated="auto")
    hub.add_token(TOKEN, "org/gated")
    args = ("download", "org/gated", "-r", hub.url, "--token", "-")
    done = run_process(*args, stdin=f"{TOKEN}\n".encode(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert TOKEN.encode() not in done.stderr


@contextmanager
def terminal() -> Iterator[tuple[int, list[str]]]:
    """What a process can have for its stderr, and what it drew there, known when the block has ended."""
    ours, theirs = pty.openpty()
    drawn: list[bytes] = []
    told: list[str] = []

    def read() -> None:
        with suppress(OSError):  # nobody holds the other end any more
            while piece := os.read(ours, 1 << 16):
                drawn.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield theirs, told
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
        told.append(b"".join(drawn).decode())


def test_on_a_terminal_it_draws_and_leaves_no_trace_of_that(hub: FakeHub, tmp_path: Path) -> None:
    hub.mode("slow", path="model-*", bytes_per_s=6_000_000)
    args = command("download", NAME, "-r", hub.url)
    with terminal() as (stderr, told):
        done = subprocess.run(
            args,
            cwd=tmp_path,
            env=environment(TERM="xterm"),
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
            check=False,
        )
    [drawn] = told
    assert (done.returncode, done.stdout.decode()) == (0, f"{FOLDER}\n")
    assert "total" in drawn and " % " in drawn
    *_, left = drawn.split("\x1b[J")
    assert left.splitlines()[-1].startswith("run it: influence generate")
    assert "total" not in left
    assert set(re.findall(r"\x1b\[\d*(.)", drawn)) == {
        "F",
        "K",
        "J",
    }  # lines are moved to and erased: no colour
