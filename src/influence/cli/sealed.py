"""influence in a process that cannot reach out: the proof that `influence doctor` gives.

    python -m influence.cli.sealed generate "Once" -m demo

runs the command as `influence` does, but any try to open a socket that leaves
this machine's file system, to look up a host name, or to start a program (which
could do either) is refused and noted. The exit code is then REACHED_OUT, even
if the program swallowed the refusal.

It watches through Python's audit events (PEP 578), so it sees what Python code
and Python's standard library do; a hook that was added can't be taken away.
"""

from __future__ import annotations

import sys
from typing import Any

REACHED_OUT = 97

_REFUSED = frozenset(
    {
        "socket.getaddrinfo",
        "socket.gethostbyname",
        "socket.gethostbyaddr",
        "socket.getnameinfo",
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
    }
)
_attempts: list[str] = []


def seal() -> None:
    """From now on this process can't open a connection; trying raises PermissionError."""
    sys.addaudithook(_refuse)


def attempts() -> tuple[str, ...]:
    """What was tried since `seal`, in order."""
    return tuple(_attempts)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in _REFUSED or (event == "socket.__new__" and not _is_local(args)):
        _attempts.append(event)
        raise PermissionError(f"{event} is refused: this process is sealed off from the network")


def _is_local(args: tuple[Any, ...]) -> bool:
    """Whether a new socket is of the family that only reaches processes of this machine."""
    import socket

    return bool(args[1] == getattr(socket, "AF_UNIX", None))


def _main() -> int:
    seal()
    from influence.cli.main import main

    code = main(sys.argv[1:])
    for attempt in attempts():
        print(f"refused: {attempt}", file=sys.stderr)
    return REACHED_OUT if attempts() else code


if __name__ == "__main__":
    sys.exit(_main())
