"""Every limit of the server, with its unit and its reason."""

from __future__ import annotations

from influence.dataclass import dataclass

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """How the server behaves; immutable. The defaults are safe for one machine and its user."""

    host: str = "127.0.0.1"
    port: int = 8080

    # Who may ask.
    api_keys: tuple[str, ...] = ()  # empty: everybody who can reach the port
    isolate_keys: bool = (
        True  # no prompt prefix is shared between keys: its speed would tell what others asked
    )
    cors_origins: tuple[str, ...] = ()  # web pages of other origins that may read answers; "*": all
    allowed_hosts: tuple[str, ...] = ()  # names beside loopback's own that a Host header may carry

    # What a request may be.
    max_header_bytes: int = 32 << 10  # all headers together; a browser's cookies and a key fit
    max_headers: int = 100
    max_body_bytes: int = 8 << 20  # a context of a million tokens as text, and its JSON
    max_depth: int = 64  # nested arrays and objects; schemas of tools stay under 20
    max_values: int = 200_000  # lists, objects and strings of a body: 10,000 messages have some 50,000
    max_choices: int = 16  # `n` of one request: each takes a place in the queue

    # What a connection may do.
    max_connections: int = 512
    header_timeout_s: float = 10.0  # from the connection, or a request's first byte, to its headers' end
    body_timeout_s: float = 30.0  # for the whole body
    idle_timeout_s: float = 30.0  # between requests
    linger_s: float = 5.0  # for a body that goes on after it was refused, so that the client reads why
    send_timeout_s: float = 30.0  # a client that reads nothing for so long has gone
    max_unsent_bytes: int = 256 << 10  # of one stream; beyond it the stream waits for its client
    ping_interval_s: float = 15.0  # a comment on a silent stream, so that proxies keep it open

    # How it lives.
    max_queue: int = 256  # requests beyond those that run; more get a 503
    retry_after_s: float = 1.0
    drain_s: float = 30.0  # what SIGTERM grants to requests that run
    farewell_s: float = 5.0  # after the last event: for its bytes to leave, for the engine to end its step
    watchdog_s: float = 120.0  # busy without a step for so long is not healthy; a slow step takes seconds

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the port."""
        return self.host in LOOPBACK_HOSTS or self.host.startswith("127.")
