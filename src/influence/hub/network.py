"""Connections: proxies of the environment, certificates, and two families of addresses at once.

How requests go out is decided here; without a proxy they go by direct.py, else by httpx2:

* Proxies are read from HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY; nothing
  else of the environment counts (no ~/.netrc, which would send its password).
* Certificates are the system's, or those of SSL_CERT_FILE or SSL_CERT_DIR.
* A host's addresses are tried in turn of their families, the next after a
  quarter of a second, and the first that answers is taken ("happy eyeballs",
  RFC 8305): a broken IPv6 line costs no time.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from influence.errors import HubUnreachable
from influence.hub.token import redacted, shown_url

if TYPE_CHECKING:
    import ssl

    import httpx2

_NEXT_ADDRESS_S = 0.25  # "Connection Attempt Delay" of RFC 8305
_CONNECT_S = 60.0  # where nothing else is said
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
Address = tuple[socket.AddressFamily, tuple[Any, ...]]


def open_transport(n_connections: int) -> httpx2.BaseTransport:
    """What carries requests: direct or through the environment's proxies, decided for each."""
    import httpx2

    class EnvironmentTransport(httpx2.BaseTransport):
        """Hands each request to the transport of its proxy, made when first needed."""

        def __init__(self) -> None:
            self._certificates = _certificates()
            self._transports = {"": _direct(self._certificates, n_connections)}
            self._making = threading.Lock()

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            return self._transport(proxy_for(str(request.url))).handle_request(request)

        def _transport(self, proxy: str) -> httpx2.BaseTransport:
            with self._making:
                if proxy not in self._transports:
                    self._transports[proxy] = _proxied(proxy, self._certificates, n_connections)
                return self._transports[proxy]

        def close(self) -> None:
            for transport in self._transports.values():
                transport.close()

    return EnvironmentTransport()


def proxy_for(url: str) -> str:
    """The proxy that the environment names for a URL, "" for none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or proxy_bypass(parts.netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


def _certificates() -> ssl.SSLContext:
    import httpx2

    try:
        return httpx2.create_ssl_context(trust_env=True)
    except OSError as error:
        named = os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR") or "the system's"
        raise HubUnreachable(
            "any host",
            f"the certificates to trust can't be read: {named}: {error.strerror or error}",
            hint="correct SSL_CERT_FILE and SSL_CERT_DIR, or unset them",
            lasting=True,
        ) from error


def _limits(n_connections: int) -> httpx2.Limits:
    import httpx2

    return httpx2.Limits(
        max_connections=n_connections, max_keepalive_connections=n_connections, keepalive_expiry=15.0
    )


def _direct(certificates: ssl.SSLContext, n_connections: int) -> httpx2.BaseTransport:
    from influence.hub.direct import DirectTransport

    return DirectTransport(certificates, open_connection, n_connections)


def _proxied(proxy: str, certificates: ssl.SSLContext, n_connections: int) -> httpx2.BaseTransport:
    import httpx2

    try:
        if urlsplit(proxy).scheme not in _PROXY_SCHEMES:
            raise ValueError(f"its URL must begin with one of {', '.join(_PROXY_SCHEMES)}")
        return httpx2.HTTPTransport(verify=certificates, limits=_limits(n_connections), proxy=proxy)
    except (ValueError, ImportError, httpx2.InvalidURL) as error:
        raise HubUnreachable(
            f"the proxy {shown_url(proxy)}",
            redacted(str(error)),
            hint="correct HTTPS_PROXY or ALL_PROXY, or unset it",
            lasting=True,
        ) from None


def open_connection(host: str, port: int, timeout_s: float | None) -> socket.socket:
    """A TCP connection to a host by name; OSError if none of its addresses accepts one in time."""
    connection = connect_first(addresses_of(host, port), timeout_s or _CONNECT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def addresses_of(host: str, port: int) -> list[Address]:
    """The host's addresses, the families in turn, the resolver's favourite first."""
    found = [
        (family, address)
        for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]
    favourite = [entry for entry in found if entry[0] == found[0][0]]
    others = [entry for entry in found if entry[0] != found[0][0]]
    return [entry for entry in chain.from_iterable(zip_longest(favourite, others)) if entry]


def connect_first(addresses: list[Address], timeout_s: float) -> socket.socket:
    """A blocking connection to the first address that accepts one; OSError if none does in time."""
    waiting, last_error = list(addresses), OSError("the host has no address")
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as losers:
        while waiting or selector.get_map():
            if waiting:
                last_error = _begin(waiting.pop(0), selector, losers) or last_error
            for key, _ in selector.select(_patience(deadline, bool(waiting), bool(selector.get_map()))):
                connection: socket.socket = key.data
                selector.unregister(connection)
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return _won(connection)
                last_error = OSError(code, os.strerror(code))
            if time.monotonic() >= deadline:
                raise TimeoutError(f"no answer in {timeout_s:.0f} s")
    raise last_error


def _begin(
    address: Address, selector: selectors.BaseSelector, losers: contextlib.ExitStack
) -> OSError | None:
    """Start a connection; the error if it fails at once."""
    try:
        connection = socket.socket(address[0], socket.SOCK_STREAM)
        losers.callback(connection.close)
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            connection.connect(address[1])
        selector.register(connection, selectors.EVENT_WRITE, connection)
    except OSError as error:
        return error
    return None


def _patience(deadline: float, more_waiting: bool, any_begun: bool) -> float:
    left = max(deadline - time.monotonic(), 0.0)
    if not more_waiting:
        return left
    return min(left, _NEXT_ADDRESS_S) if any_begun else 0.0


def _won(connection: socket.socket) -> socket.socket:
    """The connection in a new object: the losers' clean-up closes the old one."""
    winner = socket.socket(fileno=connection.detach())
    winner.setblocking(True)
    return winner
