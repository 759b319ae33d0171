"""How long to wait before the next try: what the host asks for, or a growing guess.

A host says it in one of three ways, of which the first that is there counts:

    Retry-After: 55                                  seconds (RFC 9110, 10.2.3)
    Retry-After: Wed, 21 Oct 2026 07:28:00 GMT       a date of the host's clock
    RateLimit: "api";r=0;t=55                        the Hub's: r requests left, t seconds to the next window
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from influence.hub.clock import Clock

# The Hub counts in windows of 5 minutes: no honest answer asks for more.
MAX_WAIT_S = 300.0
MAX_BACKOFF_S = 30.0
_FIRST_BACKOFF_S = 0.5

_SECONDS = re.compile(r"[0-9]{1,9}")
_WINDOW = re.compile(r"\bt=([0-9]{1,9})")


def asked_wait(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds that an answer asks us to wait, at most MAX_WAIT_S; None if it says nothing.

    `headers` has lower-case keys, or is a mapping that ignores case.
    """
    seconds = _retry_after(headers.get("retry-after", "").strip(), clock)
    if seconds is None:
        window = _WINDOW.search(headers.get("ratelimit", ""))
        seconds = float(window[1]) if window else None
    return None if seconds is None else min(max(seconds, 0.0), MAX_WAIT_S)


def _retry_after(value: str, clock: Clock) -> float | None:
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return parsedate_to_datetime(value).timestamp() - clock.wall()
    except (ValueError, OverflowError):
        return None


def backoff(n_failed: int, clock: Clock) -> float:
    """Seconds before the try after `n_failed` failed ones (1, 2, ...): doubling, by chance up to a half less."""
    longest = min(_FIRST_BACKOFF_S * 2.0 ** min(n_failed - 1, 16), MAX_BACKOFF_S)
    return longest * (1 - clock.chance() / 2)
