"""Every "no" is a situation of its own, with its own next step."""

from __future__ import annotations

import pytest

from influence.errors import (
    EntryNotFound,
    GatedModel,
    HubError,
    InvalidAnswer,
    InvalidToken,
    MirrorRefused,
    ModelNotFound,
    RevisionNotFound,
)
from influence.hub.names import RepoId
from support.fake_hub import FakeHub
from support.hub_clients import Connect

REPO, GATED, MISSING = RepoId("org", "name"), RepoId("org", "gated"), RepoId("org", "missing")


@pytest.fixture(autouse=True)
def models(fake_hub: FakeHub) -> None:
    fake_hub.add_repo("org/name", {"config.json": b"{}"})
    fake_hub.add_repo("org/gated", {"config.json": b"{}"}, gated="manual")
    fake_hub.add_repo("org/private", {"config.json": b"{}"}, private=True)
    fake_hub.add_token("hf_known")


@pytest.mark.parametrize(
    ("repo", "token"), [("org/missing", ""), ("org/missing", "hf_known"), ("org/private", "")]
)
def test_a_missing_or_private_model_is_named_with_its_host(
    repo: str, token: str, fake_hub: FakeHub, connect: Connect
) -> None:
    with pytest.raises(ModelNotFound) as caught:
        connect(token=token).resolve(RepoId.parse(repo))
    assert repo in caught.value.message
    assert fake_hub.url.removeprefix("https://") in caught.value.message
    assert ("--token" in caught.value.hint) == (token == "")


def test_a_missing_revision_is_named(connect: Connect) -> None:
    with pytest.raises(RevisionNotFound, match=r"org/name has no revision 'v9'"):
        connect().resolve(REPO, "v9")


def test_a_missing_file_is_named(connect: Connect) -> None:
    with pytest.raises(EntryNotFound, match=r"org/name has no file 'nothing\.json' at revision 'main'"):
        connect().read_file(REPO, "main", "nothing.json", 100)


def test_a_gated_model_says_where_its_licence_is_and_how_to_pass_a_token(connect: Connect) -> None:
    with pytest.raises(GatedModel, match="accepted first") as caught:
        connect().read_file(GATED, "main", "config.json", 100)
    assert "https://huggingface.co/org/gated" in caught.value.hint
    assert "--token" in caught.value.hint
    assert not caught.value.has_token


def test_a_gated_model_says_that_the_tokens_account_was_not_granted_access(connect: Connect) -> None:
    with pytest.raises(GatedModel, match="not granted access") as caught:
        connect(token="hf_known").read_file(GATED, "main", "config.json", 100)
    assert caught.value.has_token


def test_an_unknown_token_is_not_taken_for_a_missing_model(connect: Connect) -> None:
    with pytest.raises(InvalidToken) as caught:
        connect(token="hf_unknown").resolve(REPO)
    assert "unknown" not in caught.value.message + caught.value.hint


def test_a_mirrors_own_403_is_not_called_gated(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.mode("refuse")
    with pytest.raises(MirrorRefused, match="invalid request") as caught:
        connect().read_file(REPO, "main", "config.json", 100)
    assert "gated" not in caught.value.message
    assert "--mirror https://huggingface.co" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "headers", "token", "error", "words"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "", ModelNotFound, "has no model"),
        (404, {"X-Error-Code": "RepoNotFound"}, "hf_known", ModelNotFound, "has no model"),
        (
            401,
            {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."},
            "",
            ModelNotFound,
            "has no model",
        ),
        (
            401,
            {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."},
            "hf_x",
            InvalidToken,
            "token",
        ),
        (401, {"X-Error-Code": "GatedRepo"}, "", GatedModel, "gated"),
        (403, {"X-Error-Code": "GatedRepo"}, "hf_known", GatedModel, "granted"),
        (404, {"X-Error-Code": "RevisionNotFound"}, "", RevisionNotFound, "revision"),
        (401, {}, "", ModelNotFound, "has no model"),
        (401, {}, "hf_x", InvalidToken, "token"),
        (404, {}, "", ModelNotFound, "has no model"),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, "", MirrorRefused, "disabled"),
        (403, {"Content-Type": "text/html"}, "", MirrorRefused, "403"),
        (404, {"Content-Type": "text/html"}, "", MirrorRefused, "404"),
        (400, {"X-Error-Message": "Bad query"}, "", InvalidAnswer, "Bad query"),
        (451, {}, "", MirrorRefused, "451"),
        (302, {}, "", MirrorRefused, "302"),
        (304, {}, "", MirrorRefused, "304"),
        (418, {"X-Request-Id": "Root=1-abc"}, "", MirrorRefused, "request Root=1-abc"),
    ],
)
def test_status_and_code_together_say_what_happened(
    status: int,
    headers: dict[str, str],
    token: str,
    error: type[HubError],
    words: str,
    fake_hub: FakeHub,
    connect: Connect,
) -> None:
    fake_hub.mode("answer", status=status, headers=headers)
    with pytest.raises(error, match=words) as caught:
        connect(token=token).resolve(REPO)
    assert caught.value.hint


def test_the_five_refusals_of_a_file_have_five_messages_and_next_steps(
    fake_hub: FakeHub, connect: Connect
) -> None:
    def refusal(repo: RepoId, revision: str, token: str = "") -> HubError:
        with pytest.raises(HubError) as caught:
            connect(token=token).read_file(repo, revision, "config.json", 100)
        return caught.value

    errors = [
        refusal(MISSING, "main"),
        refusal(REPO, "v9"),
        refusal(GATED, "main"),
        refusal(GATED, "main", "hf_known"),
    ]
    fake_hub.mode("refuse")
    errors.append(refusal(REPO, "main"))
    assert len({error.message for error in errors}) == len({error.hint for error in errors}) == 5


def test_a_hosts_words_are_cleaned_before_they_are_shown(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.mode(
        "answer",
        status=403,
        body=b"<html><script>x()</script><b>no\x1b[31m!\x1b]0;t\x07</b>\n" + b"z" * 10**5,
    )
    with pytest.raises(MirrorRefused) as caught:
        connect().resolve(REPO)
    assert "no!" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400


def test_warnings_of_the_hub_are_passed_on_once(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.mode("answer", headers={"X-HF-Warning": "unauthenticated; pass a token"}, body=b"[]")
    notices: list[str] = []
    client = connect(on_notice=notices.append)
    list(client.search("x"))
    list(client.search("y"))
    assert notices == [f"{client.endpoint.host} says: unauthenticated; pass a token"]
