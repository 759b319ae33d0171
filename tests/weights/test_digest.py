"""One hash for what several files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from influence.weights.digest import files_digest


def test_any_other_byte_order_or_cut_gives_another_digest(tmp_path: Path) -> None:
    def digest_of(*contents: bytes) -> str:
        paths = [tmp_path / f"{i}" for i in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        return files_digest(paths)

    found = [
        digest_of(*contents) for contents in [(b"ab", b"c"), (b"a", b"bc"), (b"c", b"ab"), (b"ab", b"d"), ()]
    ]
    assert len(set(found)) == 5
    assert found[0] == digest_of(b"ab", b"c")
    assert all(len(digest) == 64 for digest in found)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files_digest([tmp_path / "absent"])
