"""What the HTTP library raises, told as our own errors."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from influence.errors import HubError, HubUnreachable, InvalidAnswer, LineBroken
from influence.hub.network import proxy_for
from influence.hub.token import Token, redacted, shown_url

_CERTIFICATE_HINT = (
    "somebody may be reading along. If this network has its own authority, "
    "name the file of its certificate in SSL_CERT_FILE"
)


@contextlib.contextmanager
def own_errors(url: str, token: Token | None) -> Iterator[None]:
    """Within, errors of httpx2 become HubUnreachable, LineBroken or InvalidAnswer about `url`."""
    import httpx2

    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise _translated(error, url, token) from error


def _translated(error: Exception, url: str, token: Token | None) -> HubError:
    import httpx2

    problem = redacted(str(error), token) or type(error).__name__
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout() | httpx2.ProxyError():
            return _unreachable(error, url, problem)
        case httpx2.TimeoutException():
            return LineBroken(shown_url(url), "the line was silent for too long")
        case httpx2.DecodingError():
            return LineBroken(shown_url(url), f"the answer's compression is damaged: {problem}")
        case httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError() | httpx2.InvalidURL():
            return InvalidAnswer(shown_url(url), f"can't be asked for: {problem}")
    return LineBroken(shown_url(url), f"the connection broke: {problem}")


def _unreachable(error: Exception, url: str, problem: str) -> HubUnreachable:
    host = urlsplit(url).netloc.rpartition("@")[2]
    untrusted = _certificate_problem(error)
    if untrusted:
        return HubUnreachable(
            host,
            f"its certificate is not to be trusted: {untrusted}",
            hint=_CERTIFICATE_HINT,
            lasting=True,
        )
    proxy = shown_url(proxy_for(url))
    return HubUnreachable(host, f"{problem}, through the proxy {proxy}" if proxy else problem)


def _certificate_problem(error: BaseException | None) -> str:
    """Why a certificate was refused, "" if that is not what happened."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""
