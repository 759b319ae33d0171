"""A Hugging Face Hub on this machine, which behaves as the real one until it is told not to.

    with FakeHub() as hub:
        hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": Virtual(5 << 20)})
        hub.mode("cut", at=1000, times=1)
        ...
        hub.log, hub.bytes_served

Four origins: `url` (the hub), `cdn_url` (its storage), `other_url` (a second
hub of the same models) over TLS, and `plain_url` without. `ca_file` holds the
authority that signed them. How it can misbehave stands in modes.py.
"""

from support.fake_hub.content import Virtual
from support.fake_hub.hub import FakeHub
from support.fake_hub.modes import Mode
from support.fake_hub.wire import Request

__all__ = ["FakeHub", "Mode", "Request", "Virtual"]
