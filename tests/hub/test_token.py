from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InvalidParameter
from influence.hub.token import Token, redacted, shown_url


@pytest.mark.parametrize(
    "text",
    ["", " hf_abc", "hf_abc ", "hf_abc\n", "hf_a bc", "hf_a\r\nHost: evil", "hf_é", "hf_a\0", "x" * 600],
)
def test_a_token_that_can_not_stand_in_a_header_is_refused_unseen(text: str) -> None:
    with pytest.raises(InvalidParameter, match="token") as caught:
        Token(text)
    assert "abc" not in caught.value.message
    assert "evil" not in caught.value.message


def test_a_token_is_shown_by_its_header_alone() -> None:
    token = Token("hf_abcDEF123")
    assert token.header == "Bearer hf_abcDEF123"
    assert "abcDEF123" not in f"{token} {token!r}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sent hf_abcDEF123 away", "sent *** away"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("via http://user:pw@proxy:80", "via http://***proxy:80"),
        ("GET https://cdn/x?Signature=abc&Expires=1 failed", "GET https://cdn/x?*** failed"),
        ("is it true? yes", "is it true? yes"),
    ],
)
def test_secrets_are_struck_out_of_texts(text: str, shown: str) -> None:
    assert redacted(text) == shown


@settings(derandomize=True, deadline=None)
@given(st.text(), st.from_regex(r"[A-Za-z0-9]{8,40}", fullmatch=True), st.text())
def test_no_text_keeps_the_users_own_token(before: str, secret: str, after: str) -> None:
    assert secret not in redacted(f"{before}{secret}{after}", Token(secret))


def test_an_address_is_shown_without_user_query_and_fragment() -> None:
    assert shown_url("https://user:pw@host:1/a%20b?Signature=x#y") == "https://host:1/a%20b"
