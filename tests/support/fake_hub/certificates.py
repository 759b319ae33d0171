"""Certificates of an authority that only these tests know."""

from __future__ import annotations

import atexit
import datetime
import shutil
import ssl
import tempfile
from functools import cache
from pathlib import Path

import trustme

_HOSTS = ("127.0.0.1", "localhost", "::1")


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def authority_file() -> Path:
    """A PEM file with the authority's certificate; it lies in a temporary folder until the process ends."""
    folder = tempfile.mkdtemp(prefix="fake-hub-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "ca.pem"
    authority().cert_pem.write_to_path(str(path))
    return path


@cache
def server_context(kind: str = "good") -> ssl.SSLContext:
    """What a server shows: a "good" certificate, or one "expired", for a "wronghost", or "untrusted"."""
    certificate = {
        "good": lambda: authority().issue_cert(*_HOSTS),
        "expired": lambda: authority().issue_cert(
            *_HOSTS,
            not_before=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            not_after=datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        ),
        "wronghost": lambda: authority().issue_cert("hub.example"),
        "untrusted": lambda: trustme.CA().issue_cert(*_HOSTS),
    }[kind]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    certificate.configure_cert(context)
    return context
