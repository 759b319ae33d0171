"""What was asked for."""

from __future__ import annotations

from influence.errors.base import InfluenceError


class RequestError(InfluenceError):
    """What was asked for can't be done."""


class InvalidParameter(RequestError):
    """A value out of its range; names the parameter, the value, and the range."""

    def __init__(self, name: str, value: object, expected: str) -> None:
        super().__init__(
            f"{name} is {value!r}, but must be {expected}",
            hint="see --help for the ranges",
        )
        self.name = name
        self.value = value
        self.expected = expected


class PortUnavailable(RequestError):
    """The server can't have the port that it should listen on; says why."""

    def __init__(self, host: str, port: int, reason: str, *, hint: str) -> None:
        super().__init__(f"can't listen on {host} port {port}: {reason}", hint=hint)
        self.host = host
        self.port = port


class ServerBusy(RequestError):
    """No place for another request now; try again after `retry_after_s` seconds."""

    def __init__(self, n_waiting: int, retry_after_s: float) -> None:
        super().__init__(
            f"{n_waiting} requests are waiting already",
            hint=f"try again in {retry_after_s:.0f} s",
        )
        self.retry_after_s = retry_after_s
