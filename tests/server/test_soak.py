"""Hours in seconds: mixed requests and cancels, after which nothing has grown.

INFLUENCE_SOAK_S=600 runs it for ten minutes; a short run shows leaks of a descriptor, a
block or a place for each request, and memory that grows fast.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time

import psutil
import pytest

from support.servers import ServeProcess, until
from support.wire import connect, exchange, post, read_response, reset

if sys.platform == "win32":
    pytest.skip("counts descriptors as on Unix", allow_module_level=True)

SOAK_S = float(os.environ.get("INFLUENCE_SOAK_S", "5"))
WARM_UP_S = min(SOAK_S, 120.0)  # until every cache has its size
CLIENT_TIMEOUT_S = 600.0  # a busy machine may be slow; a request that was lost never ends
MAX_GROWN_BYTES = 4 << 20  # the allocator's own moves; what every request leaks outgrows it
N_CLIENTS = 6
GET_METRICS = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
KINDS = ("whole", "stream", "leave", "reset", "wrong", "large", "scored")


def play(port: int, seed: int, until_s: float, faults: list[str]) -> None:
    """One client's random life."""
    choose = random.Random(seed)
    while time.monotonic() < until_s:
        try:
            play_once(port, choose)
        except (OSError, AssertionError) as error:
            faults.append(repr(error))


def play_once(port: int, choose: random.Random) -> None:
    kind = choose.choice(KINDS)
    body = {"prompt": f"Story {choose.randrange(50)}" * 4, "max_tokens": choose.randrange(1, 60)}
    path, expected = "/v1/generate", 200
    if kind == "wrong":
        body, expected = {"prompt": 5}, 400
    elif kind == "large":
        body, expected = {"prompt": [3] * 5000}, 400
    elif kind == "scored":
        path = "/v1/completions"
        body |= {"model": "demo", "echo": True, "logprobs": 2, "max_tokens": 1, "n": 1}
    elif kind != "whole":
        path = "/v1/generate_stream"
    with connect(port) as sock:
        sock.settimeout(CLIENT_TIMEOUT_S)
        sock.sendall(post(path, body))
        if kind in ("leave", "reset"):
            sock.recv(choose.randrange(1, 500))
            if kind == "reset":
                reset(sock)
        else:
            assert read_response(sock)[0] == expected, kind


def gauge(port: int, name: str) -> float:
    text = exchange(port, GET_METRICS, "GET")[2].decode()
    found = re.search(rf"^influence_{name} (\S+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def soak(port: int, seconds: float, seed: int) -> None:
    faults: list[str] = []
    until_s = time.monotonic() + seconds
    clients = [
        threading.Thread(target=play, args=(port, seed + i, until_s, faults)) for i in range(N_CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert faults == []
    until(lambda: gauge(port, "requests_unfinished") == 0)
    until(lambda: gauge(port, "kv_blocks_reserved") == 0)


@pytest.mark.slow
def test_a_long_mixed_load_leaves_nothing_behind() -> None:
    with ServeProcess("--quiet", "--kv-memory", "8MB", "--max-concurrent", "8") as server:
        process = psutil.Process(server.process.pid)
        soak(server.port, WARM_UP_S, seed=1)
        n_files, n_threads, resident = process.num_fds(), process.num_threads(), process.memory_info().rss
        soak(server.port, SOAK_S, seed=100)
        until(lambda: process.num_fds() <= n_files)
        assert process.num_threads() <= n_threads
        assert process.memory_info().rss - resident < MAX_GROWN_BYTES
        assert [line for line in server.lines if "rror" in line] == []
