"""What the hops on the way to a file say of it."""

from __future__ import annotations

import pytest

from influence.hub.answers import FileFacts, plain_etag

COMMIT, SHA256, SHA1 = "c" * 40, "a" * 64, "b" * 40

# The first hop of a large file, as the Hub answers it: its own length is that of the redirect's text.
LARGE = {
    "x-repo-commit": COMMIT,
    "x-linked-size": "1215981830",
    "x-linked-etag": f'"{SHA256}"',
    "etag": f'"{"d" * 64}"',
    "content-length": "1127",
}


@pytest.mark.parametrize(
    ("headers", "status", "facts"),
    [
        (LARGE, 302, FileFacts(COMMIT, 1215981830, SHA256, None)),
        ({"etag": f'W/"{SHA1}"', "content-length": "28"}, 200, FileFacts("", 28, None, SHA1)),
        ({"etag": SHA1, "content-range": "bytes 0-0/28", "content-length": "1"}, 206, FileFacts("", 28, None, SHA1)),
        ({"content-range": "bytes 0-0/*", "content-length": "1"}, 206, FileFacts()),
        ({"content-length": "99"}, 307, FileFacts()),
        ({"content-length": "99", "content-encoding": "gzip"}, 200, FileFacts()),
        ({"content-length": "-1", "x-linked-size": "1e9", "x-repo-commit": "main", "etag": '"x"'}, 200, FileFacts()),
        ({}, 200, FileFacts()),
    ],
)  # fmt: skip
def test_a_hop_says_of_a_file_what_its_headers_mean(
    headers: dict[str, str], status: int, facts: FileFacts
) -> None:
    assert FileFacts().after(headers, status) == facts


def test_the_first_word_of_a_file_counts() -> None:
    later = {"x-repo-commit": "e" * 40, "x-linked-size": "5", "x-linked-etag": "f" * 64}
    first = FileFacts().after(LARGE, 302)
    assert first.after(later, 302) == first


@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', "abc", ' "abc" '])
def test_every_spelling_of_a_tag_is_the_same_tag(etag: str) -> None:
    assert plain_etag(etag) == "abc"
