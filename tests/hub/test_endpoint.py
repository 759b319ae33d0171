from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InvalidParameter
from influence.hub.endpoint import Endpoint, origin_of, reach_of


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://hf-mirror.com", "https://hf-mirror.com"),
        ("https://hf-mirror.com/", "https://hf-mirror.com"),
        ("hf-mirror.com", "https://hf-mirror.com"),
        ("HTTPS://HF-Mirror.com:443/", "https://hf-mirror.com"),
        ("https://hub.example.:8443", "https://hub.example:8443"),
        ("127.0.0.1:8443", "https://127.0.0.1:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("https://müller.example", "https://xn--mller-kva.example"),
    ],
)
def test_an_endpoint_has_one_spelling(text: str, url: str) -> None:
    assert str(Endpoint.parse(text)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://",
        "ftp://hf-mirror.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user:secret@hf-mirror.com",
        "https://hf-mirror.com/path",
        "https://hf-mirror.com?x=1",
        "https://hf-mirror.com#x",
        "https://hf mirror.com",
        "https://hf-mirror.com:99999",
        "https://hf-mirror.com:x",
        "https://[::1",
        "https://hf-mirror.com\\@evil.example",
        "https://hf%2dmirror.com",
        "https://" + "a" * 70 + ".com",
    ],
)
def test_what_is_no_endpoint_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(InvalidParameter, match="mirror") as caught:
        Endpoint.parse(text)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("host", ["hf-mirror.com", "10.0.0.5", "169.254.169.254", "127.0.0.1.example.com"])
def test_plain_http_is_refused_beyond_this_machine_unless_it_is_allowed(host: str) -> None:
    with pytest.raises(InvalidParameter, match="--allow-http"):
        Endpoint.parse(f"http://{host}")
    assert Endpoint.parse(f"http://{host}", allow_http=True).url == f"http://{host}"


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("localhost", "loopback"),
        ("LOCALHOST.", "loopback"),
        ("x.localhost", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.9.9.9", "loopback"),
        ("::1", "loopback"),
        ("[::ffff:127.0.0.1]", "loopback"),
        ("10.1.2.3", "local"),
        ("192.168.0.1", "local"),
        ("169.254.169.254", "local"),
        ("0.0.0.0", "local"),
        ("::", "local"),
        ("fe80::1", "local"),
        ("fd00::1", "local"),
        ("127.1", "local"),
        ("2130706433", "local"),
        ("0x7f000001", "local"),
        ("0x7f.1", "local"),
        ("8.8.8.8", "public"),
        ("hf-mirror.com", "public"),
        ("localhost.example.com", "public"),
        ("2606:4700::1", "public"),
    ],
)
def test_from_where_a_host_is_reached(host: str, reach: str) -> None:
    assert reach_of(host) == reach


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.ip_addresses())
def test_no_address_that_is_not_global_counts_as_public(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = getattr(address, "ipv4_mapped", None) or address
    assert (reach_of(str(address)) == "public") == mapped.is_global


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.text(max_size=30).map("https://".__add__) | st.text(max_size=30))
def test_any_text_has_an_origin_or_none(text: str) -> None:
    origin = origin_of(text)
    assert origin == "" or origin_of(origin) == origin
