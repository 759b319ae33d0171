from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InvalidParameter, UnsafeName
from influence.hub.names import RepoId, check_file_name, check_file_names, check_revision
from support.unsafe_names import UNSAFE

SAFE = [
    "config.json",
    ".gitattributes",
    ".gitignore",
    "model-00001-of-00002.safetensors",
    "1_Pooling/config.json",
    "a/b c (1)/[x]{y}.txt",
    "日本語/モデル.json",
    "🤗.md",
    "résumé.txt",
    "..hidden/...x",
    "console.log",
    "nullable/common.txt",
    "x~1",
    "a" * 255,
]


@pytest.mark.parametrize("name", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_file_name_is_refused_and_named(name: str) -> None:
    with pytest.raises(UnsafeName) as caught:
        check_file_name(name)
    assert name.startswith(caught.value.path)
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", SAFE)
def test_a_usual_file_name_is_accepted(name: str) -> None:
    check_file_name(name)


names = st.text(max_size=40) | st.lists(
    st.sampled_from(["..", ".", "", "a", "CON", "C:", "~", ".git", "nul.x", "b ", "c.", "\\", "x\0"]),
    max_size=5,
).map("/".join)


@settings(derandomize=True, deadline=None, max_examples=2000)
@given(names)
def test_an_accepted_name_stays_inside_on_every_system(name: str) -> None:
    try:
        check_file_name(name)
    except UnsafeName:
        return
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    assert not windows.drive and not windows.root and not posix.root
    assert not any(PureWindowsPath(part).is_reserved() for part in windows.parts)
    assert windows.as_posix() == posix.as_posix() == name
    assert ".." not in windows.parts


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("README.md", "readme.md"),
        ("straße", "STRASSE"),
        ("caf\u00e9.json", "cafe\u0301.json"),
        ("a/b", "A/b"),
        ("A/x", "a/y"),
        ("\u00c5", "\u212b"),
    ],
)
def test_two_names_that_are_one_somewhere_are_refused(first: str, second: str) -> None:
    with pytest.raises(UnsafeName, match=r"same (file|folder)"):
        check_file_names([first, second])


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a"), ("A/b", "a"), ("a/b/c", "a/b")])
def test_a_file_that_is_also_a_folder_is_refused(paths: tuple[str, str]) -> None:
    with pytest.raises(UnsafeName, match="also the folder"):
        check_file_names(paths)


def test_many_honest_names_pass_together() -> None:
    check_file_names(name for name in SAFE)


@pytest.mark.parametrize(
    "text",
    ["org/name", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "01-ai/Yi-1.5_x", "a/b", "a" * 47 + "/" + "b" * 48],
)
def test_a_repository_name_is_read_as_it_is_written(text: str) -> None:
    repo = RepoId.parse(text)
    assert str(repo) == text
    assert repo.folder == text.replace("/", "_")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "/",
        "org/",
        "/name",
        "a/b/c",
        "../b",
        "a/..",
        "a/.b",
        "-a/b",
        "a/b-",
        "a/b--c",
        "a/b..c",
        "a/b.git",
        "a/b c",
        "a/b\n",
        "a/b?x",
        "a/é",
        "a\\b/c",
        "a/b#c",
        "a/" + "b" * 95,
    ],
)
def test_what_is_no_repository_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="ORG/NAME"):
        RepoId.parse(text)


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.from_regex(r"[a-zA-Z0-9._/-]{1,100}", fullmatch=True))
def test_the_hubs_own_client_agrees_on_repository_names(text: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(text)
        theirs = "/" in text
    except HFValidationError:
        theirs = False
    try:
        RepoId.parse(text)
        ours = not text.endswith(".ipynb")
    except InvalidParameter:
        ours = text.endswith(".ipynb") and theirs
    assert ours == theirs


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/12", "feature/x_y", "a" * 40, "1.0+cu"])
def test_branches_tags_and_commits_are_accepted(revision: str) -> None:
    assert check_revision(revision) == revision


@pytest.mark.parametrize(
    "revision",
    ["", "-x", "a..b", "a//b", "/a", "a/", ".a", "a.", "a@{1}", "a b", "a\n", "a?b", "a:b", "x" * 256],
)
def test_what_git_could_not_name_is_refused(revision: str) -> None:
    with pytest.raises(InvalidParameter, match="revision"):
        check_revision(revision)
