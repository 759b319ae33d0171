"""Names that come from outside, checked before they become a URL or a path.

A repository's name follows the Hub's own rule (utils/_validators.py of
huggingface_hub): ORG/NAME, each of letters, digits, "-", "_" and ".", neither
"--" nor ".." inside, "-" and "." not at an end, 96 characters in all.

A file's name must mean the same file on every system that we may run on, and
lie inside the folder whatever that system makes of it (Windows' rules are in
"Naming Files, Paths, and Namespaces" of its documentation).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from influence.errors import InvalidParameter, UnsafeName

_MAX_REPO_CHARACTERS = 96
_REPO_PART = re.compile(r"(?![-.])[A-Za-z0-9._-]+(?<![-.])")
_REVISION = re.compile(r"(?![-/.])[A-Za-z0-9._/+@=-]{1,255}(?<![/.])")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_MAX_PART_BYTES = 255  # NAME_MAX of Linux, macOS and, in UTF-16 units, of Windows
_MAX_PATH_BYTES = 1024  # PATH_MAX of macOS, the smallest
_MAX_DEPTH = 32
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\')
# Where we and git keep our own files: a model may not write there.
_OWN_FOLDERS = frozenset({".git", ".influence"})
# Characters that some file systems drop from a name, so that another name appears.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")


@dataclass(frozen=True, slots=True, order=True)
class RepoId:
    """A model's name on the Hub; `str` gives "org/name"."""

    org: str
    name: str

    @classmethod
    def parse(cls, text: str) -> RepoId:
        """The name in "org/name"; InvalidParameter for anything else."""
        org, _, name = text.partition("/")
        sound = len(text) <= _MAX_REPO_CHARACTERS and _is_repo_part(org) and _is_repo_part(name)
        if not sound or text.endswith((".git", ".ipynb")):
            raise InvalidParameter(
                "model", text[: 2 * _MAX_REPO_CHARACTERS], "ORG/NAME, as on https://huggingface.co/models"
            )
        return cls(org, name)

    @property
    def folder(self) -> str:
        """The name of its folder on the shelf."""
        return f"{self.org}_{self.name}"

    def __str__(self) -> str:
        return f"{self.org}/{self.name}"


def _is_repo_part(part: str) -> bool:
    return _REPO_PART.fullmatch(part) is not None and "--" not in part and ".." not in part


def check_revision(revision: str) -> str:
    """The branch, tag ("refs/pr/1" too) or commit; InvalidParameter if git could not name one so."""
    if not _REVISION.fullmatch(revision) or any(bad in revision for bad in ("..", "//", "@{")):
        raise InvalidParameter("revision", revision[:255], "a branch, a tag or a commit")
    return revision


def is_commit(text: str) -> bool:
    """Whether this is a full commit: 40 hexadecimal digits."""
    return _COMMIT.fullmatch(text) is not None


def check_file_name(path: str) -> None:
    """Raises UnsafeName unless `path` is a relative name, with "/", that is safe on every system."""
    reason = _path_problem(path) or next(filter(None, map(_part_problem, path.split("/"))), "")
    if reason:
        raise UnsafeName(path[:_MAX_PATH_BYTES], reason)


def _path_problem(path: str) -> str:
    if not path:
        return "is empty"
    if any(unicodedata.category(character) in _INVISIBLE for character in path):
        return "holds a control or invisible character"
    if any(character in _FORBIDDEN for character in path):
        return f"holds one of {' '.join(sorted(_FORBIDDEN))}"
    if path.startswith(("/", "~")):
        return "is not relative to the model's folder"
    if len(path.encode()) > _MAX_PATH_BYTES or path.count("/") >= _MAX_DEPTH:
        return "is too long or too deep"
    return ""


def _part_problem(part: str) -> str:
    if part in ("", ".", ".."):
        return f"has a part {part!r}, which could lead out of the folder"
    if part.endswith((".", " ")) or part.startswith(" "):
        return "has a part that begins or ends in a space, or ends in a dot"
    if len(part.encode()) > _MAX_PART_BYTES:
        return f"has a part of more than {_MAX_PART_BYTES} bytes"
    if _RESERVED.fullmatch(part):
        return f"has the part {part!r}, which names a device on Windows"
    if _folded(part) in _OWN_FOLDERS or re.fullmatch(r"git~[0-9]+", _folded(part)):
        return f"lies in {part!r}, which is not the model's"
    return ""


def check_file_names(paths: Iterable[str]) -> None:
    """Raises UnsafeName for an unsafe name, two that are one file somewhere, or a file that is also a folder.

    Names are one on a system that ignores case, or spells accents in its own way (NFC, NFD).
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        check_file_name(path)
        other = files.setdefault(_folded(path), path)
        if other is not path:
            raise UnsafeName(path, f"is the same file as {other!r} on some systems")
        for folder in _parents(path):
            _check_one_spelling(folders, folder)
    for folded, folder in folders.items():
        if folded in files:
            raise UnsafeName(files[folded], f"is also the folder {folder!r}")


def _check_one_spelling(folders: dict[str, str], folder: str) -> None:
    other = folders.setdefault(_folded(folder), folder)
    if other != folder:
        raise UnsafeName(folder, f"is the same folder as {other!r} on some systems")


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())
