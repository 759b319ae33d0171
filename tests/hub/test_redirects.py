"""Where we let ourselves be sent, and what goes along."""

from __future__ import annotations

import pytest

from influence.errors import HubUnreachable, RedirectRefused
from influence.hub.endpoint import Endpoint
from influence.hub.names import RepoId
from influence.hub.redirects import RedirectPolicy
from support.fake_hub import FakeHub
from support.hub_clients import Connect

REPO = RepoId("org", "name")
WEIGHTS = bytes(range(256)) * 8
FILE = "https://hf-mirror.com/org/name/resolve/main/config.json"
API = "https://hf-mirror.com/api/models/org/name/tree/main"
OFFICIAL_FILE = "https://huggingface.co/org/name/resolve/main/config.json"
STORAGE = "https://cas-bridge.xethub.hf.co/xet-bridge-us/abc?Signature=x"


def policy(endpoint: str = "https://hf-mirror.com") -> RedirectPolicy:
    return RedirectPolicy(Endpoint.parse(endpoint, allow_http=True), ["https://huggingface.co"])


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        (
            FILE,
            "/api/resolve-cache/models/o/n/c/f?%2Fo=&etag=%22a%22",
            "https://hf-mirror.com/api/resolve-cache/models/o/n/c/f?%2Fo=&etag=%22a%22",
        ),
        (FILE, "?last", FILE + "?last"),
        (FILE, STORAGE, STORAGE),
        (FILE, STORAGE + "#part", STORAGE),
        (FILE, OFFICIAL_FILE, OFFICIAL_FILE),
        (FILE, "//huggingface.co/x", "https://huggingface.co/x"),
        (API, "https://huggingface.co/api/models/x/y", "https://huggingface.co/api/models/x/y"),
        ("https://hf-mirror.com/api/resolve-cache/models/o/n/c/f", STORAGE, STORAGE),
        (STORAGE, "https://us.aws.cdn.hf.co/y?z=1", "https://us.aws.cdn.hf.co/y?z=1"),
        (OFFICIAL_FILE, STORAGE, STORAGE),
        (OFFICIAL_FILE, FILE, FILE),
    ],
)
def test_an_honest_redirect_is_followed_to_the_letter(url: str, location: str, target: str) -> None:
    assert policy().target(url, location) == target


@pytest.mark.parametrize(
    ("url", "location", "reason"),
    [
        (FILE, "http://hf-mirror.com/x", "not encrypted"),
        (FILE, "http://cdn.example/x", "not encrypted"),
        (FILE, "file:///etc/passwd", "not an address of the web"),
        (FILE, "ftp://hf-mirror.com/x", "not an address of the web"),
        (FILE, "https://[::1", "not an address of the web"),
        (FILE, "https://user:pw@cdn.example/x", "user name"),
        (FILE, "https://127.0.0.1/x", "inside this machine"),
        (FILE, "https://localhost:8443/x", "inside this machine"),
        (FILE, "https://[::1]/x", "inside this machine"),
        (FILE, "https://[::ffff:127.0.0.1]/x", "inside this machine"),
        (FILE, "https://169.254.169.254/latest/meta-data", "inside this machine"),
        (FILE, "https://10.0.0.1/x", "inside this machine"),
        (FILE, "https://0x7f.1/x", "inside this machine"),
        (FILE, "https://2130706433/x", "inside this machine"),
        (FILE, "https://hub.example/org/name/resolve/main/config.json", "another hub"),
        (FILE, "https://hub.example/api/models/x/y", "another hub"),
        (FILE, "https://huggingface.co:8443/org/name/resolve/main/x", "another hub"),
        (FILE, "https://huggingface.co.example/org/name/resolve/main/x", "another hub"),
        (API, STORAGE, "another host"),
        (API, "https://hub.example/api/models/x/y", "another host"),
    ],
)
def test_a_dishonest_one_is_refused_and_explained(url: str, location: str, reason: str) -> None:
    with pytest.raises(RedirectRefused, match=reason) as caught:
        policy().target(url, location)
    assert "pw" not in caught.value.message
    assert "Signature" not in caught.value.message


@pytest.mark.parametrize(
    ("endpoint", "location", "followed"),
    [
        ("https://127.0.0.1:1", "https://127.0.0.1:2/x", True),
        ("https://localhost", "https://[::1]/x", True),
        ("https://127.0.0.1:1", "https://169.254.169.254/x", False),
        ("https://127.0.0.1:1", "https://10.0.0.1/x", False),
        ("https://10.0.0.1", "https://10.0.0.2/x", True),
        ("https://10.0.0.1", "https://127.0.0.1/x", False),
        ("http://127.0.0.1:1", "http://127.0.0.1:2/x", True),
        ("http://mirror.example", "http://cdn.example/x", True),
        ("http://mirror.example", "https://cdn.example/x", True),
    ],
)
def test_a_hub_of_this_machine_or_network_may_send_to_its_like(
    endpoint: str, location: str, followed: bool
) -> None:
    url = f"{endpoint}/o/n/resolve/main/f"
    if followed:
        assert policy(endpoint).target(url, location) == location
        return
    with pytest.raises(RedirectRefused):
        policy(endpoint).target(url, location)


def test_http_is_not_taken_up_again_after_https() -> None:
    with pytest.raises(RedirectRefused, match="not encrypted"):
        policy("http://mirror.example").target(STORAGE, "http://mirror.example/x")


@pytest.fixture
def sha(fake_hub: FakeHub) -> str:
    fake_hub.add_token("hf_secret")
    return fake_hub.add_repo("org/name", {"config.json": b"{}", "model.safetensors": WEIGHTS})


def test_the_token_and_cookies_stay_with_the_hub(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("answer", path="/api/models", headers={"Set-Cookie": "session=1; Path=/"}, body=b"[]")
    client = connect(token="hf_secret")
    list(client.search("x"))
    assert client.read_file(REPO, sha, "model.safetensors", 1 << 20) == WEIGHTS
    sent = {request.origin: request.headers for request in fake_hub.log}
    assert sent["hub"]["authorization"] == "Bearer hf_secret"
    assert "authorization" not in sent["cdn"]
    assert not any({"cookie", "referer"} & set(request.headers) for request in fake_hub.log)


def test_the_token_reaches_a_gated_small_file_behind_the_hubs_own_redirect(
    fake_hub: FakeHub, connect: Connect
) -> None:
    sha = fake_hub.add_repo("org/gated", {"config.json": b"{}"}, gated="manual")
    fake_hub.add_token("hf_granted", "org/gated")
    client = connect(token="hf_granted")
    assert client.read_file(RepoId("org", "gated"), sha, "config.json", 100) == b"{}"
    assert ["resolve-cache" in request.path for request in fake_hub.log] == [False, True]


def test_the_query_of_a_relative_redirect_is_kept(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    assert connect().read_file(REPO, sha, "config.json", 100) == b"{}"
    assert "etag=%22" in fake_hub.log[-1].path


def test_a_redirect_to_plain_http_is_refused_before_anything_is_sent_there(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("http")
    with pytest.raises(RedirectRefused, match="not encrypted"):
        connect().read_file(REPO, sha, "model.safetensors", 1 << 20)
    assert {request.origin for request in fake_hub.log} == {"hub"}


def test_a_mirrors_redirect_to_another_hub_is_followed_if_allowed_without_the_token_and_said(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("abs308")
    notices: list[str] = []
    client = connect(token="hf_secret", allowed_hubs=[fake_hub.other_url], on_notice=notices.append)
    assert client.read_file(REPO, sha, "model.safetensors", 1 << 20) == WEIGHTS
    assert client.read_file(REPO, sha, "config.json", 1 << 20) == b"{}"
    elsewhere = [request for request in fake_hub.log if request.origin != "hub"]
    assert {request.origin for request in elsewhere} == {"other", "cdn"}
    assert not any("authorization" in request.headers for request in elsewhere)
    assert len(notices) == 1
    assert fake_hub.other_url.removeprefix("https://") in notices[0]
    assert "without the token" in notices[0]


def test_it_is_refused_with_the_next_step_if_not(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("abs308")
    with pytest.raises(RedirectRefused, match="another hub") as caught:
        connect().read_file(REPO, sha, "config.json", 100)
    assert "--mirror" in caught.value.hint
    assert {request.origin for request in fake_hub.log} == {"hub"}


def test_a_token_that_left_its_host_is_not_sent_when_we_come_back(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("abs308", times=1)
    fake_hub.mode("redirect", to=f"{fake_hub.url}/org/name/resolve/{sha}/config.json?back", times=1)
    client = connect(token="hf_secret", allowed_hubs=[fake_hub.other_url])
    assert client.read_file(REPO, sha, "config.json", 100) == b"{}"
    visited = [(request.origin, "authorization" in request.headers) for request in fake_hub.log]
    assert visited == [("hub", True), ("other", False), ("hub", False), ("hub", False)]


def test_a_redirect_in_a_circle_is_recognized(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("loop")
    with pytest.raises(RedirectRefused, match="to itself again"):
        connect().read_file(REPO, sha, "config.json", 100)
    assert len(fake_hub.log) == 1


@pytest.mark.parametrize(("n", "followed"), [(8, True), (9, False)])
def test_ten_redirects_are_followed_and_no_more(
    n: int, followed: bool, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("hops", n=n)
    if followed:
        assert connect().read_file(REPO, sha, "config.json", 100) == b"{}"
    else:
        with pytest.raises(RedirectRefused, match="after 10 redirects"):
            connect().read_file(REPO, sha, "config.json", 100)
        assert len(fake_hub.log) == 11


@pytest.mark.parametrize("target", ["file:///etc/passwd", "https://169.254.169.254/x", "https://10.0.0.1/x"])
def test_a_redirect_into_the_network_is_refused(
    target: str, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("redirect", to=target)
    with pytest.raises(RedirectRefused):
        connect().read_file(REPO, sha, "model.safetensors", 100)


def test_storage_that_is_not_there_is_named(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("redirect", to="https://127.0.0.1:9/x?Signature=s3cret")
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:9") as caught:
        connect(tries=1).read_file(REPO, sha, "model.safetensors", 100)
    assert "s3cret" not in caught.value.message


def test_a_renamed_model_answers_under_its_old_name(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.renamed["old/name"] = "org/name"
    revision = connect().resolve(RepoId("old", "name"))
    assert (revision.repo, revision.sha) == (REPO, sha)
