"""A real `influence serve`: its port, its start, its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import command, environment, run_process
from support.servers import ServeProcess, until
from support.sse import read_events
from support.wire import connect, exchange, post, read_response, read_to_end

if sys.platform == "win32":
    pytest.skip("signals as on Unix", allow_module_level=True)

N_TERMINATIONS = int(os.environ.get("INFLUENCE_TERMINATIONS", "5"))
# A few seconds of work for the demo, so that a signal finds it under way.
LONG = {"prompt": "Tell me a story.", "max_tokens": 1000, "ignore_eos": True}
MANY = {"model": "demo", "prompt": "Once", "max_tokens": 900, "n": 16, "ignore_eos": True}
GET_READY = b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def failed_start(*args: str) -> tuple[int, str]:
    done = run_process("serve", *args)
    assert done.stdout == b""
    return done.returncode, done.stderr.decode()


def test_a_taken_port_is_told_with_who_has_it(taken_port: int) -> None:
    code, said = failed_start("-m", "demo", "-p", str(taken_port))
    assert code == 1
    assert f"port {taken_port}" in said and f"process {os.getpid()}" in said
    assert "hint: stop that program, or give another port with -p" in said


def test_the_port_comes_before_the_model(taken_port: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("broken")
    code, said = failed_start("-m", str(tmp_path), "-p", str(taken_port))
    assert code == 1 and "port" in said and "config" not in said


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no.such.host.invalid", "no such address"),
        ("203.0.113.7", "does not have that address"),
        ("a..b", "no such"),
    ],
)
def test_an_address_that_is_not_ours_is_told(host: str, said: str) -> None:
    code, text = failed_start("-m", "demo", "--host", host, "-p", "0", "--no-auth")
    assert code == 1 and said in text and "Traceback" not in text


@pytest.mark.parametrize(
    "args",
    [
        ["--host", "0.0.0.0"],
        ["--host", "::"],
        ["--api-key", "k", "--no-auth"],
        ["--api-key", "two words"],
        ["--api-key", ""],
        ["--api-key-file", "/nothing/there"],
        ["--kv-memory", "much"],
        ["-p", "70000"],
        ["--max-concurrent", "0"],
        ["--queue", "-1"],
    ],
    ids=" ".join,
)
def test_options_that_are_unsafe_or_senseless_are_bad_usage(args: list[str]) -> None:
    code, said = failed_start("-m", "demo", *args)
    assert code == 2
    assert said.startswith("error: ") and "Traceback" not in said


def test_a_model_that_is_not_there_ends_it() -> None:
    code, said = failed_start("-m", "no/such/model/here", "-p", "0")
    assert code == 1 and said.startswith("error: ")


def test_ready_means_that_the_model_answers_and_idle_sigterm_ends_it() -> None:
    with ServeProcess() as server:
        status, _, body = exchange(server.port, post("/v1/generate", {"prompt": "Once", "max_tokens": 4}))
        assert status == 200 and json.loads(body)["text"]
        assert server.stop(signal.SIGTERM) == 0
        assert not [line for line in server.lines if "rror" in line]


def test_sigint_ends_it_the_same_way() -> None:
    with ServeProcess("--quiet") as server:
        assert server.stop(signal.SIGINT) == 0


def test_sigterm_lets_a_stream_end_and_takes_nothing_new() -> None:
    with ServeProcess("--max-concurrent", "1") as server, connect(server.port) as stream:
        stream.sendall(post("/v1/generate_stream", LONG))
        first = stream.recv(1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: exchange(server.port, GET_READY, "GET")[0] == 503)
        status, headers, body = exchange(server.port, post("/v1/generate", LONG))
        assert (status, json.loads(body)["error"]["code"]) == (503, "shutting_down")
        assert int(headers["retry-after"]) >= 1
        rest = read_to_end(stream)
        assert server.wait() == 0
    events = read_events(first + rest.replace(b"\r\n", b"\n"))
    assert events[-1][0] == "done" and b"event: error" not in rest


@pytest.mark.parametrize("n", range(N_TERMINATIONS))
def test_sigterm_under_load_ends_every_stream_properly(n: int) -> None:
    """Streams that would outlive the drain: each is told why it ends; queued ones too."""
    with ServeProcess("--drain", "0.2", "--max-concurrent", "4", "--quiet") as server:
        streams = [connect(server.port) for _ in range(12)]
        for stream in streams:
            stream.sendall(post("/v1/completions", {**MANY, "n": 1 + n % 4, "stream": True}))
        assert streams[0].recv(1)
        assert server.stop(signal.SIGTERM) == 0
        for stream in streams:
            with stream:
                assert_proper_end(read_to_end(stream))
        assert not [line for line in server.lines if "Traceback" in line]


def assert_proper_end(answer: bytes) -> None:
    """A whole stream, one that says why it ends, or a refusal; each with its framing's end."""
    if b" 503 " in answer[:40]:
        assert b"shutting_down" in answer
        return
    assert answer.endswith(b"\r\n0\r\n\r\n"), answer[-200:]
    assert b"[DONE]" in answer or b"shutting_down" in answer


def test_a_second_signal_ends_it_at_once() -> None:
    with ServeProcess("--max-concurrent", "1") as server, connect(server.port) as stream:
        stream.sendall(post("/v1/completions", {**MANY, "stream": True}))
        assert stream.recv(1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: exchange(server.port, GET_READY, "GET")[0] == 503)
        assert server.stop(signal.SIGTERM, within_s=5) == 128 + signal.SIGTERM


STUCK = """
import sys
sys.path.insert(0, {tests!r})
from influence.server.app import create_app
from influence.server.life import bind, run
from influence.server.settings import Settings
from support.gated_engine import GatedEngine
from support.servers import served_demo

settings = Settings(drain_s=0.1, farewell_s=0.3)
with served_demo(settings, wrap=GatedEngine) as service, bind("127.0.0.1", 0) as sock:
    service.generator._engine.shut()
    run(service, create_app(service), sock, lambda: print(sock.getsockname()[1], flush=True))
"""


def test_sigterm_ends_it_though_the_engine_hangs() -> None:
    script = STUCK.format(tests=str(Path(__file__).resolve().parent.parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None and process.stderr is not None
    with process, connect(int(process.stdout.readline())) as stream:
        stream.sendall(post("/v1/generate_stream", LONG))
        assert stream.recv(17) == b"HTTP/1.1 200 OK\r\n"
        process.send_signal(signal.SIGTERM)
        rest = read_to_end(stream)
        assert process.wait(10) == 0
    assert b"event: error" in rest and b"shutting_down" in rest and rest.endswith(b"\r\n0\r\n\r\n")


def test_nobody_reading_its_output_is_no_reason_to_end() -> None:
    reader, writer = os.pipe()
    arguments = command("serve", "-m", "demo", "-p", "0")
    process = subprocess.Popen(arguments, stdout=writer, stderr=writer, env=environment())
    os.close(writer)
    said = b""
    while b" answers at http://" not in said or not said.endswith(b"\n"):
        said += os.read(reader, 4096)
    port = int(said.split(b" answers at http://127.0.0.1:")[1].split(b"\n")[0])
    os.close(reader)
    for _ in range(3):
        assert exchange(port, post("/v1/generate", {"prompt": "Once", "max_tokens": 2}))[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_reader_that_pauses_does_not_pause_the_server() -> None:
    arguments = command("serve", "-m", "demo", "-p", "0")
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stderr is not None
    with process:
        port = int(process.stderr.readline().split(b":")[-1])
        get = b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"
        with connect(port) as sock:
            for _ in range(800):  # lines for more than the 64 KiB that a pipe holds
                sock.sendall(get)
                assert read_response(sock, "GET")[0] == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_log_has_no_prompt_no_key_and_no_control_character() -> None:
    with ServeProcess("--api-key", "sesame-123") as server:
        key = "authorization: Bearer sesame-123"
        body = {"prompt": "my secret sentence", "max_tokens": 4}
        assert exchange(server.port, post("/v1/generate?q=hidden-query", body, key))[0] == 200
        target = b"/%0a%1b[31mfake%20line%0d"
        exchange(server.port, b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", "GET")
        assert exchange(server.port, b"{broken\r\n\r\n", "GET")[0] == 400
        server.stop(signal.SIGTERM)
        said = "\n".join(server.lines)
    for secret in ("secret sentence", "sesame", "hidden-query", "\x1b", "\r"):
        assert secret not in said
    assert len([line for line in server.lines if " POST /v1/generate 200 " in line]) == 1
    assert "/%0A%1B%5B31mfake%20line%0D 401" in said


def test_a_few_open_files_are_enough() -> None:
    limited = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); "
    limited += f"os.execv(sys.executable, {command('serve', '-m', 'demo', '-p', '0', '--quiet')!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", limited], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment()
    )
    assert process.stderr is not None
    port = int(process.stderr.readline().split(b":")[-1])
    crowd = []
    try:
        for _ in range(400):
            crowd.append(connect(port))
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        for sock in crowd:
            sock.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stderr.close()


def test_serving_opens_no_connection() -> None:
    """The sealed process fails at any connection of its own; answering needs none."""
    with ServeProcess("--quiet") as server:
        before = connections_of(server.process.pid)
        body = {
            "messages": [{"role": "user", "content": "Look at http://127.0.0.1:9/a.png"}],
            "max_tokens": 4,
        }
        with connect(server.port) as sock:
            sock.sendall(post("/v1/chat/completions", {"model": "demo", **body}))
            assert read_response(sock)[0] == 200
            assert connections_of(server.process.pid) - before <= {server.port}
        server.stop(signal.SIGTERM)


def connections_of(pid: int) -> set[int]:
    """Local ports of what the process has open."""
    import psutil

    return {connection.laddr.port for connection in psutil.Process(pid).net_connections("inet")}
