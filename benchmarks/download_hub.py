"""The hub that downloads are measured on, a process of its own: a model of one large file and its config, over TLS.

Prints one line of JSON once it listens, {"url", "ca_file", "sha256"}, and serves until its input ends.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from functools import cached_property
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.fake_hub import FakeHub

REPO = "org/name"
WEIGHTS = "model.safetensors"
_TILE_BYTES = 1 << 20


class InMemory:
    """Random bytes made once, so that serving them costs little beside TLS; every MiB begins with its number."""

    def __init__(self, size_bytes: int) -> None:
        tile, n_tiles = os.urandom(_TILE_BYTES - 8), -(-size_bytes // _TILE_BYTES)
        data = b"".join(number.to_bytes(8, "little") + tile for number in range(n_tiles))
        self._view = memoryview(data)[:size_bytes]
        self.size_bytes = size_bytes

    def read(self, begin: int, end: int) -> memoryview:
        return self._view[begin:end]

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self._view).hexdigest()

    @cached_property
    def git_sha1(self) -> str:
        return hashlib.sha1(b"blob %d\0" % self.size_bytes + self._view).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("size_bytes", type=int)
    parser.add_argument("--throttle", type=float, metavar="BYTES_PER_S", help="of each connection")
    options = parser.parse_args()
    weights = InMemory(options.size_bytes)
    with FakeHub() as hub:
        hub.add_repo(REPO, {"config.json": b"{}", WEIGHTS: weights})
        if options.throttle:
            hub.mode("slow", path=WEIGHTS, bytes_per_s=options.throttle)
        print(json.dumps({"url": hub.url, "ca_file": str(hub.ca_file), "sha256": weights.sha256}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
