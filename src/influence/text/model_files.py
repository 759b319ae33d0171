"""Small files of a model folder, read as what they are: bytes from a stranger.

A folder may hold a FIFO that never delivers, a device that never ends, a link
to either, a file larger than memory, or JSON that is not JSON. Each is a
TokenizerError here; an absent file is None, and what that means is the
caller's to say.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from influence.errors import TokenizerError

_UTF8_BOM = b"\xef\xbb\xbf"


def read_bytes(path: Path, max_bytes: int) -> bytes | None:
    """The file's content without a UTF-8 byte order mark, or None if there is no such file.

    Opened without blocking and looked at before it is read, so that a FIFO or
    a device is refused and not waited for. Raises TokenizerError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        _check_kind_and_size(path, os.fstat(descriptor), max_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if len(content) > max_bytes:
        raise _too_large(path, max_bytes)
    return content.removeprefix(_UTF8_BOM)


def read_text(path: Path, max_bytes: int) -> str | None:
    """The file as text, newlines as they are read in text mode, or None if there is no such file."""
    content = read_bytes(path, max_bytes)
    if content is None:
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(path, f"is not UTF-8: byte {error.start} can't be decoded") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in the file, {} if there is no such file."""
    content = read_bytes(path, max_bytes)
    if content is None:
        return {}
    try:
        found = json.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise TokenizerError(path, "is nested too deeply") from error
    except ValueError as error:
        raise TokenizerError(path, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise TokenizerError(path, f"holds {type(found).__name__}, not a JSON object")
    return found


def _check_kind_and_size(path: Path, status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise TokenizerError(path, "is not a regular file", hint="replace it by the model's own file")
    if status.st_size > max_bytes:
        raise _too_large(path, max_bytes)


def _too_large(path: Path, max_bytes: int) -> TokenizerError:
    return TokenizerError(path, f"is larger than {max_bytes >> 20} MiB, more than any such file needs")


def _unreadable(path: Path, error: OSError) -> TokenizerError:
    return TokenizerError(
        path,
        f"can't be read: {error.strerror or error}",
        hint="check the file's permissions",
    )
