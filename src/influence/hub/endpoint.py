"""The host that the user named: the official Hub or a mirror of it."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from influence.dataclass import dataclass
from influence.errors import InvalidParameter

OFFICIAL = "https://huggingface.co"
DEFAULT_MIRROR = "https://hf-mirror.com"

_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Endpoint:
    """An origin such as "https://hf-mirror.com": scheme, host and port, nothing after."""

    url: str

    @classmethod
    def parse(cls, text: str, *, allow_http: bool = False) -> Endpoint:
        """The endpoint in a URL, or in a bare host name (then https).

        InvalidParameter for another scheme, a user name, a path, a host that is
        none; and for http, unless the host is this machine or `allow_http`.
        """
        url = text if "://" in text else f"https://{text}"
        origin = origin_of(url)
        if not origin or not _is_bare(urlsplit(url)):
            raise InvalidParameter("mirror", text.rpartition("@")[2], "a URL such as https://hf-mirror.com")
        endpoint = cls(origin)
        if origin.startswith("http:") and not (allow_http or endpoint.reach == "loopback"):
            raise InvalidParameter(
                "mirror", origin, "https: over http anyone on the way can change the files (--allow-http)"
            )
        return endpoint

    @property
    def host(self) -> str:
        """Host, with the port if it is not the scheme's own, as messages name it."""
        return urlsplit(self.url).netloc

    @property
    def reach(self) -> str:
        return reach_of(urlsplit(self.url).hostname or "")

    def __str__(self) -> str:
        return self.url


def origin_of(url: str) -> str:
    """Scheme, host and port of an http(s) URL in one spelling; "" if it has none."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip(".").lower(), parts.port
        host = host if ":" in host else host.encode("idna").decode()
    except (ValueError, UnicodeError):
        return ""
    if parts.scheme not in _DEFAULT_PORTS or not host or any(c.isspace() or c in "%\\" for c in host):
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}")


def reach_of(host: str) -> str:
    """From where a host is reached, by its spelling alone: "loopback", "local" (this network) or "public"."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return "loopback"
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return "local" if _is_odd_number(name) else "public"
    mapped = getattr(address, "ipv4_mapped", None) or address
    if mapped.is_loopback:
        return "loopback"
    return "public" if mapped.is_global else "local"


def _is_odd_number(name: str) -> bool:
    """Whether a resolver may read the name as an address: "127.1", "0x7f000001", "2130706433"."""
    last = name.rsplit(".", 1)[-1]
    return last.isdigit() or (last.startswith("0x") and all(c in "0123456789abcdef" for c in last[2:]))


def _is_bare(parts: SplitResult) -> bool:
    """Whether a URL holds scheme, host and port alone."""
    return parts.username is None and not (parts.path.strip("/") or parts.query or parts.fragment)
