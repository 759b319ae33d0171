"""A peer engine in a process of its own, so that it stays loaded and takes turns with ours.

One JSON object a line, requests on the child's stdin, replies on what was its stdout:

    child  {"ready": "llama.cpp 1.2.3, 2 threads"}
    parent {"do": "prefill_s", "with": [512]}
    child  {"reply": 4.81}
    parent {"do": "logits", "with": [[1, 15, 7], 2]}
    child  {"reply": "<base64 of float32>"}

An {"error": "..."} in place of a reply ends the benchmark. The end of its stdin
ends the child. Standard library only: the child runs in the peer's environment.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner import Backend, Generating, Runner


class PeerFailed(Exception):
    """The peer could not be started, or gave up; says why in its own words."""


class PeerRunner:
    """A Runner whose backend lives in a child process; its clock runs there, too."""

    def __init__(self, python: Path, script: str, settings: Mapping[str, object]) -> None:
        """Starts `script` of this folder with `python` and waits until the model is loaded."""
        self._process = subprocess.Popen(
            [python, Path(__file__).parent / script, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.description = str(self._read("ready"))

    def prefill_s(self, n_tokens: int) -> float:
        return float(self._ask("prefill_s", n_tokens))

    def decode_s(self, n_tokens: int, depth: int, n_streams: int) -> float:
        return float(self._ask("decode_s", n_tokens, depth, n_streams))

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        return base64.b64decode(self._ask("logits", list(token_ids), n_rows))

    def close(self) -> None:
        """Let the child end. Idempotent."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait()

    def _ask(self, do: str, *arguments: object) -> Any:
        if self._process.stdin is None:
            raise PeerFailed("the peer has no input")
        try:
            self._process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise PeerFailed(f"the peer ended with status {self._process.wait()}") from error
        return self._read("reply")

    def _read(self, key: str) -> Any:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            status = self._process.wait()
            raise PeerFailed(f"the peer ended with status {status} (is its package there for --peer-python?)")
        answer = json.loads(line)
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer[key]


def serve(load: Callable[[Mapping[str, Any]], Backend | Generating]) -> None:
    """The child's main: load what the first argument says, then answer until stdin ends."""
    # Libraries print where they like; only replies may reach the parent.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1) as replies:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        try:
            runner = Runner(load(json.loads(sys.argv[1])))
            print(json.dumps({"ready": runner.description}), file=replies)
            for line in sys.stdin:
                print(json.dumps({"reply": _answer(runner, json.loads(line))}), file=replies)
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=replies)


def _answer(runner: Runner, request: Mapping[str, Any]) -> object:
    methods: dict[str, Callable[..., float | bytes]] = {
        "prefill_s": runner.prefill_s,
        "decode_s": runner.decode_s,
        "logits": runner.logits,
    }
    value = methods[request["do"]](*request["with"])
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
