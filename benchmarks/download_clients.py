"""One download by one client, timed in a process of its own, so that memory and processor time are its own too.

    python download_clients.py CLIENT URL FOLDER      with SSL_CERT_FILE set

Prints {"seconds", "cpu_s", "peak_mb"}: from the call to the file's last byte, libraries loaded before.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from download_hub import REPO, WEIGHTS

OURS = "influence"
_PREPARED = Callable[[], object]


def influence(url: str, folder: Path) -> _PREPARED:
    """Resolved, listed, ranged, verified, flushed to the disk, renamed."""
    import httpx2  # noqa: F401  (loaded when first needed, which is not what is timed)

    from influence.hub.client import Hub
    from influence.hub.endpoint import Endpoint
    from influence.hub.names import RepoId
    from influence.hub.source import HubSource
    from influence.hub.transfer import Origin, download

    def run() -> None:
        with Hub(Endpoint.parse(url)) as hub:
            revision = hub.resolve(RepoId.parse(REPO))
            origin = Origin(REPO, "main", revision.sha, url)
            files = hub.tree(revision.repo, revision.sha)
            download(HubSource(hub, revision.repo, revision.sha), origin, files, folder)

    return run


def huggingface_hub(url: str, folder: Path) -> _PREPARED:
    """Its snapshot into a plain folder; it compares sizes, no hashes."""
    from huggingface_hub import snapshot_download

    return lambda: snapshot_download(REPO, endpoint=url, local_dir=folder, token=False)


def aria2c(url: str, folder: Path) -> _PREPARED:
    """The weights alone by 16 connections; no hash, no flush."""
    return _command(
        "aria2c", "-q", "-x16", "-s16", "--file-allocation=none",
        f"--ca-certificate={os.environ['SSL_CERT_FILE']}", "-d", str(folder), "-o", WEIGHTS, _address(url),
    )  # fmt: skip


def curl(url: str, folder: Path) -> _PREPARED:
    """The weights alone by one connection: a plain copy, no hash, no flush."""
    ca_file = os.environ["SSL_CERT_FILE"]
    return _command("curl", "-sfL", "--cacert", ca_file, "-o", str(folder / WEIGHTS), _address(url))


CLIENTS: dict[str, Callable[[str, Path], _PREPARED]] = {
    OURS: influence,
    "huggingface_hub": huggingface_hub,
    "aria2c": aria2c,
    "curl": curl,
}


def _address(url: str) -> str:
    return f"{url}/{REPO}/resolve/main/{WEIGHTS}"


def _command(*words: str) -> _PREPARED:
    return lambda: subprocess.run(words, check=True)


def main() -> None:
    client, url, folder = sys.argv[1:]
    run = CLIENTS[client](url, Path(folder))
    who = resource.RUSAGE_CHILDREN if client in ("aria2c", "curl") else resource.RUSAGE_SELF
    before, begun = resource.getrusage(who), time.monotonic()
    run()
    seconds, after = time.monotonic() - begun, resource.getrusage(who)
    cpu_s = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    print(json.dumps({"seconds": seconds, "cpu_s": cpu_s, "peak_mb": after.ru_maxrss / 1e3}))


if __name__ == "__main__":
    main()
