"""How the fake hub misbehaves.

on files (the answer that carries bytes; `path` is matched with the file's path in its repository)
  cut        at=K            the connection ends after byte K of the body
  eof        at=K            the same, without the end that TLS demands
  rst        at=K            the same, by a TCP reset
  stall      at=K            nothing more comes after byte K
  dribble    delay_s=S       a byte at a time, S seconds between them
  slow       bytes_per_s=N   each connection no faster than this
  corrupt    at=K            one bit of byte K of the file is flipped
  shortlength by=N           Content-Length says N fewer bytes than come
  longlength by=N            ... N more
  nolength                   chunked, no Content-Length
  gzip                       Content-Encoding: gzip, though not asked for
  range200                   ranges are ignored
  wrongrange by=N            a 206 of bytes that lie N further on
  norange                    a 206 without Content-Range
  416                        no range is satisfiable
  etagflip                   another ETag each time
  page                       a web page, status 200
on resolve (the Hub's answer about a file, before the bytes)
  http                       redirect to the plain origin
  abs308     to=URL          absolute redirect to another hub, of the same path
  redirect   to=URL          redirect to this very address
  loop                       redirect to itself
  hops       n=N             N redirects before the file
  expire     after=N         signed addresses are good for N bytes each
  movehead   files={...}     the branch main gets another commit once this file was asked for
on the API (`path` is matched with the URL's path)
  page, bomb, badjson        a web page; a gigabyte of gzip; half a document
  notree                     the tree is not known
  link       to=URL          the next page is there
anywhere (`path` is matched with the URL's path)
  answer     status=, headers=, body=    this, whatever was asked
  refuse                     403 "invalid request", as a mirror's filter says it
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

WIRE = ("cut", "eof", "rst", "stall", "dribble", "slow", "corrupt")


@dataclass
class Mode:
    name: str
    path: str = "*"
    times: int | None = None  # how many requests it still hits; None for all
    options: dict[str, Any] = field(default_factory=dict)
    n_used: int = 0


class Modes:
    """The modes switched on; a request takes one by name and path."""

    def __init__(self) -> None:
        self._modes: list[Mode] = []
        self._lock = threading.Lock()

    def add(self, mode: Mode) -> Mode:
        with self._lock:
            self._modes.append(mode)
        return mode

    def clear(self) -> None:
        with self._lock:
            self._modes.clear()

    def take(self, name: str, *paths: str) -> Mode | None:
        """The first mode of that name that fits one of the paths and has times left; it is used once more."""
        with self._lock:
            for mode in self._modes:
                if mode.name == name and mode.times != 0 and any(fnmatchcase(p, mode.path) for p in paths):
                    mode.n_used += 1
                    if mode.times is not None:
                        mode.times -= 1
                    return mode
        return None
