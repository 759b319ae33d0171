"""influence in a process that cannot reach out: the proof that `influence doctor` gives.

    python -m influence.cli.sealed generate "Once" -m demo

runs the command as `influence` does, but any try to open a socket that leaves
this machine, to look up a host name, or to start a program (which could do
either) is refused and noted. The exit code is then REACHED_OUT, even if the
program swallowed the refusal. One program may be started: the renderer of chat
templates, which takes from itself the right to open any file or socket before
it sees a template (text/template_worker.py).

It watches through Python's audit events (PEP 578), so it sees what Python code
and Python's standard library do; a hook that was added can't be taken away.
"""

from __future__ import annotations

import os.path
import sys
from typing import Any

import influence

REACHED_OUT = 97

_REFUSED = frozenset(
    {
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
        "socket.getnameinfo",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
    }
)
_TEMPLATE_RENDERER = os.path.join(os.path.dirname(influence.__file__), "text", "template_worker.py")  # noqa: PTH118, PTH120
_attempts: list[str] = []


def seal() -> None:
    """From now on this process can't open a connection; trying raises PermissionError."""
    sys.addaudithook(_refuse)


def attempts() -> tuple[str, ...]:
    """What was tried since `seal`, in order."""
    return tuple(_attempts)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if (
        event in _REFUSED
        or (event == "socket.__new__" and not _is_local(args))
        or (event == "subprocess.Popen" and not _is_template_renderer(args))
    ):
        _attempts.append(event)
        raise PermissionError(f"{event} is refused: this process is sealed off from the network")


def _is_local(args: tuple[Any, ...]) -> bool:
    """Whether a new socket, of (self, family, ...), reaches only processes of this machine."""
    import socket

    return bool(args[1] == getattr(socket, "AF_UNIX", None))


def _is_template_renderer(args: tuple[Any, ...]) -> bool:
    """Whether (executable, arguments, ...) is our Python with the one script, in isolated mode."""
    executable, arguments = args[0], list(args[1])
    return executable == sys.executable and arguments[1:4] == ["-I", "-S", _TEMPLATE_RENDERER]


def _main() -> int:
    seal()
    from influence.cli.main import main

    code = main(sys.argv[1:])
    for attempt in attempts():
        print(f"refused: {attempt}", file=sys.stderr)
    return REACHED_OUT if attempts() else code


if __name__ == "__main__":
    sys.exit(_main())
