"""Server-sent events, read by the rules of the HTML standard rather than by ours."""

from __future__ import annotations

import re


def read_events(content: bytes) -> list[tuple[str, str]]:
    """(event, data) of each event; one that is cut off is not an event."""
    events = []
    name, data = "message", []
    for line in re.split(r"\r\n|\r|\n", content.decode())[:-1]:
        if not line:
            if data:
                events.append((name, "\n".join(data)))
            name, data = "message", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
    return events
