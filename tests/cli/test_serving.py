"""What `serve` makes of its options."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import click
import pytest

from influence import demo
from influence.cli.options import size
from support.cli import run
from support.servers import ServeProcess
from support.wire import exchange, post

GET = "GET {} HTTP/1.1\r\nhost: localhost\r\n{}\r\n"


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("1000", 1000), ("4GB", 4 * 10**9), ("512MiB", 512 << 20), ("1.5 gib", 3 << 29), ("8kb", 8000)],
)
def test_a_size_is_read_in_both_kinds_of_units(text: str, n_bytes: int) -> None:
    assert size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "4 apples", "1e9", "4GBB", "١GB", "nan"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        size(text)


def test_a_cache_too_small_for_one_block_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(capsys, "serve", "-m", "demo", "-p", "0", "--kv-memory", "0")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")


def test_an_empty_file_of_keys_is_bad_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n \n")
    done = run(capsys, "serve", "-m", "demo", "--api-key-file", str(tmp_path / "keys"))
    assert done.exit_code == 2 and "there is no key in it" in done.stderr


def test_keys_of_a_file_the_alias_and_the_folders_name_are_what_clients_use(tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    shutil.copytree(demo.folder(), folder)
    keys = tmp_path / "keys"
    keys.write_text("first-key\n\nsecond-key\n")
    arguments = ("--api-key-file", str(keys), "--alias", "gpt-4o", "--quiet")
    with ServeProcess(*arguments, model=f"{folder}{os.sep}") as server:
        models = GET.format("/v1/models", "x-api-key: second-key\r\n").encode()
        status, _, body = exchange(server.port, models, "GET")
        assert status == 200
        assert [entry["id"] for entry in json.loads(body)["data"]] == ["my-model", "gpt-4o"]
        assert str(tmp_path) not in body.decode()
        ask = {"model": "gpt-4o", "prompt": "Once", "max_tokens": 2}
        key = "authorization: Bearer first-key"
        assert exchange(server.port, post("/v1/completions", ask, key))[0] == 200
        assert exchange(server.port, post("/v1/completions", {**ask, "model": "other"}, key))[0] == 404
        assert exchange(server.port, post("/v1/completions", ask))[0] == 401
        assert server.stop(signal.SIGTERM) == 0
    assert not [line for line in server.lines if "first-key" in line or "second-key" in line]


def test_a_key_of_the_environment_counts() -> None:
    with ServeProcess("--quiet", INFLUENCE_API_KEY="from-outside") as server:
        assert exchange(server.port, GET.format("/metrics", "").encode(), "GET")[0] == 401
        keyed = GET.format("/metrics", "x-api-key: from-outside\r\n")
        assert exchange(server.port, keyed.encode(), "GET")[0] == 200
