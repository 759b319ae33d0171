"""Bodies and tries: what breaks on the way, what is asked again, and for how long."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Iterator

import httpx2
import pytest

from influence.errors import (
    DownloadFailed,
    HubError,
    HubUnreachable,
    InvalidAnswer,
    LineBroken,
    LinkExpired,
    MirrorRefused,
    RangeRefused,
)
from influence.hub.endpoint import Endpoint
from influence.hub.http import Http
from influence.hub.names import RepoId
from influence.hub.token import Token
from support.fake_clock import FakeClock
from support.fake_hub import FakeHub
from support.hub_clients import Connect

REPO = RepoId("org", "name")
WEIGHTS = bytes(i * 7 % 251 for i in range(5000))
NAME = "model.safetensors"


@pytest.fixture(autouse=True)
def sha(fake_hub: FakeHub) -> str:
    return fake_hub.add_repo("org/name", {"config.json": b"{}", NAME: WEIGHTS})


# Tries and waits -----------------------------------------------------------------------------


def test_three_503_are_waited_out(fake_hub: FakeHub, connect: Connect, clock: FakeClock, sha: str) -> None:
    fake_hub.mode("answer", status=503, times=3)
    reasons: list[str] = []
    client = connect(on_wait=lambda seconds, reason: reasons.append(reason))
    assert client.resolve(REPO).sha == sha
    assert clock.now == 0.5 + 1 + 2
    assert "503" in reasons[0]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_a_host_that_stays_broken_is_given_up_after_five_tries(
    status: int, fake_hub: FakeHub, connect: Connect, clock: FakeClock
) -> None:
    fake_hub.mode("answer", status=status, headers={"X-Request-Id": "Root=7"})
    with pytest.raises(DownloadFailed, match=rf"answered {status}.*Root=7"):
        connect().resolve(REPO)
    assert len(fake_hub.log) == 5


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "55"}, 55),
        ({"Retry-After": "Tue, 14 Nov 2023 22:15:00 GMT"}, 100),  # the clock's wall starts at 22:13:20
        ({"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 55),
        ({"Retry-After": "99999"}, 300),
        ({}, 0.5),
    ],
)
def test_a_rate_limit_is_waited_out_exactly_and_counted_down(
    headers: dict[str, str], seconds: float, fake_hub: FakeHub, connect: Connect, clock: FakeClock, sha: str
) -> None:
    fake_hub.mode("answer", status=429, headers=headers, times=1)
    told: list[tuple[float, str]] = []
    assert connect(on_wait=lambda left, reason: told.append((left, reason))).resolve(REPO).sha == sha
    assert clock.now == seconds
    assert [left for left, _ in told] == [seconds - i for i in range(len(told))]
    assert len(told) == max(int(seconds), 1)
    assert all("too many requests" in reason for _, reason in told)


def test_a_range_may_be_tried_less_often(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.mode("answer", status=503)
    with pytest.raises(LineBroken), connect().http.open_range("/x", 0, 10, tries=2):
        pass
    assert len(fake_hub.log) == 2


def test_a_refusal_is_not_asked_again(fake_hub: FakeHub, connect: Connect, clock: FakeClock) -> None:
    fake_hub.mode("answer", status=403)
    with pytest.raises(MirrorRefused):
        connect().resolve(REPO)
    assert len(fake_hub.log) == 1
    assert clock.slept == []


def test_a_try_that_the_caller_gives_up_in_its_wait_ends_there(fake_hub: FakeHub, connect: Connect) -> None:
    class GivenUp(Exception):
        pass

    def give_up(seconds: float, reason: str) -> None:
        raise GivenUp

    fake_hub.mode("answer", status=503)
    with pytest.raises(GivenUp):
        connect(on_wait=give_up).resolve(REPO)
    assert len(fake_hub.log) == 1


# Bodies that break ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["cut", "eof", "rst"])
@pytest.mark.parametrize("at", [0, 1, 2500, 4999])
def test_a_line_that_breaks_is_tried_again(
    mode: str, at: int, fake_hub: FakeHub, connect: Connect, clock: FakeClock, sha: str
) -> None:
    fake_hub.mode(mode, at=at, times=2)
    assert connect().read_file(REPO, sha, NAME, 10_000) == WEIGHTS
    assert clock.now == 0.5 + 1


@pytest.mark.parametrize("mode", ["cut", "eof", "rst"])
def test_a_broken_body_gives_the_bytes_before_the_break(
    mode: str, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode(mode, at=3000)
    client = connect()
    came = b""
    with client.http.open_range(client.file_url(REPO, sha, NAME), 0, None) as answer:  # noqa: SIM117
        with pytest.raises(LineBroken):
            for chunk in answer.chunks():
                came += chunk
    # A reset may overtake the bytes that were sent before it.
    assert came == WEIGHTS[: len(came)]
    assert mode == "rst" or len(came) == 3000


def test_a_silent_line_is_given_up(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("stall", at=100)
    with pytest.raises(LineBroken, match="silent"):
        connect(silence_s=0.05, tries=1).read_file(REPO, sha, NAME, 10_000)


class Dribble(httpx2.SyncByteStream):
    """A byte at a time, so many seconds apart."""

    def __init__(self, clock: FakeClock, n_bytes: int, delay_s: float) -> None:
        self.clock, self.n_bytes, self.delay_s = clock, n_bytes, delay_s

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(self.n_bytes):
            self.clock.advance(self.delay_s)
            yield b"x"


def dribbling(clock: FakeClock, n_bytes: int, delay_s: float) -> Http:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, stream=Dribble(clock, n_bytes, delay_s))

    endpoint = Endpoint.parse("https://hf-mirror.com")
    return Http(endpoint, clock=clock, transport=httpx2.MockTransport(answer), tries=1)


def test_a_line_that_dribbles_is_given_up_after_a_minute(clock: FakeClock) -> None:
    with dribbling(clock, 1000, 1.0) as http, pytest.raises(LineBroken, match="only 60 bytes came in 60 s"):
        http.read("/x", 10_000)


def test_a_slow_line_is_not_given_up_for_its_readers_sake(clock: FakeClock) -> None:
    with dribbling(clock, 100, 0.001) as http, http.open_range("/x", 0, None) as answer:
        for _ in answer.chunks():
            clock.advance(10)  # a disk, say, that takes its time
    assert clock.now > 600


def test_a_length_that_promises_too_much_is_a_broken_line(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("longlength", by=10)
    with pytest.raises(LineBroken):
        connect(tries=1).read_file(REPO, sha, NAME, 10_000)


def test_a_length_that_promises_too_little_ends_the_body_there(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("shortlength", by=10)
    client = connect()
    assert client.read_file(REPO, sha, NAME, 10_000) == WEIGHTS[:-10]
    fake_hub.clear_modes()
    assert client.read_file(REPO, sha, NAME, 10_000) == WEIGHTS


def test_a_part_whose_length_lies_is_noticed(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("shortlength", by=10, times=1)
    assert connect().read_range(REPO, sha, NAME, 100, 200) == WEIGHTS[100:200]
    fake_hub.mode("shortlength", by=10)
    with pytest.raises(LineBroken, match="10 bytes early"):
        connect(tries=1).read_range(REPO, sha, NAME, 100, 200)


def test_a_body_without_a_length_is_read_to_its_end(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("nolength")
    assert connect().read_file(REPO, sha, NAME, 10_000) == WEIGHTS
    assert connect().read_range(REPO, sha, NAME, 10, 20) == WEIGHTS[10:20]


# Encodings and sizes -------------------------------------------------------------------------


def test_plain_bytes_are_asked_for_and_nothing_told_of_where_we_come_from(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    connect().read_file(REPO, sha, NAME, 10_000)
    for request in fake_hub.log:
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["user-agent"].startswith("influence/")
        assert "referer" not in request.headers


def test_a_body_that_came_packed_all_the_same_is_unpacked(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("gzip")
    client = connect()
    assert client.read_file(REPO, sha, NAME, 10_000) == WEIGHTS
    with client.http.open_range(client.file_url(REPO, sha, NAME), 10, 20) as answer:
        assert (answer.kind, b"".join(answer.chunks())) == ("whole", WEIGHTS)
        assert answer.total_bytes == len(WEIGHTS)


def test_packed_json_is_read_and_a_damaged_one_is_not(fake_hub: FakeHub, connect: Connect) -> None:
    packed = gzip.compress(b"[]")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    fake_hub.serve("/api/models", packed, headers=headers)
    assert list(connect().search("x")) == []
    fake_hub.serve("/api/models", b"\0" * 40, headers=headers)
    with pytest.raises(LineBroken, match="compression"):
        list(connect(tries=1).search("x"))


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip", "x" * 1000])
def test_an_encoding_that_was_not_asked_for_is_named(
    encoding: str, fake_hub: FakeHub, connect: Connect
) -> None:
    fake_hub.serve("/api/models", b"[]", headers={"Content-Encoding": encoding})
    with pytest.raises(InvalidAnswer, match=encoding[:10]):
        list(connect().search("x"))


def test_a_gigabyte_that_was_packed_small_is_refused_in_little_memory(
    fake_hub: FakeHub, connect: Connect
) -> None:
    fake_hub.mode("bomb")
    tracemalloc.start()
    try:
        with pytest.raises(InvalidAnswer, match="larger than"):
            list(connect().search("x"))
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()


def test_a_small_file_that_is_not_small_is_refused_early(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    with pytest.raises(InvalidAnswer, match="larger than the 4999 bytes"):
        connect().read_file(REPO, sha, NAME, 4999)
    assert connect().read_file(REPO, sha, NAME, 5000) == WEIGHTS


# Web pages in place of data ------------------------------------------------------------------


def test_the_sign_in_page_of_a_network_is_recognized_and_quoted(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.mode("page")
    with pytest.raises(MirrorRefused, match=r"web page \(Sign in to Café WiFi\)") as caught:
        connect().resolve(REPO)
    assert "sign in" in caught.value.hint


def test_a_page_that_calls_itself_json_is_recognized_too(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.serve("/api/models", b"\n <!DOCTYPE html><p>Welcome</p>")
    with pytest.raises(MirrorRefused, match="Welcome"):
        list(connect().search("x"))


def test_a_page_in_place_of_a_file_is_recognized(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("page")
    client = connect()
    with pytest.raises(MirrorRefused, match="hf-mirror"):
        client.read_file(REPO, sha, NAME, 10_000)
    with pytest.raises(MirrorRefused), client.http.open_range(client.file_url(REPO, sha, NAME), 0, 10):
        pass


@pytest.mark.parametrize("body", [b"", b"[", b"{]", b"nothing", b"\xff\xfe", b'"' + b"x" * 100, b"[" * 10**5])
def test_what_is_no_json_is_refused(body: bytes, fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.serve("/api/models", body)
    with pytest.raises(InvalidAnswer, match="is not JSON"):
        list(connect().search("x"))


# Ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0, 5000), (4999, 5000), (17, 4000)])
def test_a_range_is_exactly_what_was_asked_for(
    begin: int, end: int, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    assert connect().read_range(REPO, sha, NAME, begin, end) == WEIGHTS[begin:end]
    assert fake_hub.log[-1].range == f"bytes={begin}-{end - 1}"


def test_a_host_that_ignores_ranges_is_read_up_to_the_range(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode("range200")
    client = connect()
    assert client.read_range(REPO, sha, NAME, 100, 200) == WEIGHTS[100:200]
    with client.http.open_range(client.file_url(REPO, sha, NAME), 100, 200) as answer:
        assert (answer.kind, answer.begin, answer.end) == ("whole", 0, None)


@pytest.mark.parametrize("mode", ["wrongrange", "norange"])
def test_other_bytes_than_asked_for_are_refused(
    mode: str, fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    fake_hub.mode(mode, by=8)
    with pytest.raises(RangeRefused):
        connect().read_range(REPO, sha, NAME, 100, 200)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 100-300/5000", "bytes 99-199/5000", "bytes 101-199/5000", "bytes 199-100/5000", "bytes 100-199/150",
     "bytes */5000", "items 100-199/5000", "bytes 100-199", "bytes 1e2-199/5000", "bytes 100-" + "9" * 30 + "/*"],
)  # fmt: skip
def test_a_content_range_that_does_not_answer_the_question_is_refused(
    content_range: str, fake_hub: FakeHub, connect: Connect
) -> None:
    fake_hub.serve("/x", b"x" * 100, status=206, headers={"Content-Range": content_range})
    with pytest.raises(RangeRefused), connect().http.open_range("/x", 100, 200):
        pass


@pytest.mark.parametrize(
    ("content_range", "end"),
    [("bytes 100-149/150", 150), ("bytes 100-149/*", 150), ("bytes 100-199/200", 200)],
)
def test_fewer_bytes_than_asked_for_are_a_part_too(
    content_range: str, end: int, fake_hub: FakeHub, connect: Connect
) -> None:
    fake_hub.serve("/x", b"x" * (end - 100), status=206, headers={"Content-Range": content_range})
    with connect().http.open_range("/x", 100, 200) as answer:
        assert (answer.kind, answer.begin, answer.end) == ("part", 100, end)
        assert len(b"".join(answer.chunks())) == end - 100


def test_more_bytes_than_announced_are_refused(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.serve("/x", b"x" * 11, status=206, headers={"Content-Range": "bytes 0-9/100"})
    with connect().http.open_range("/x", 0, 10) as answer, pytest.raises(RangeRefused, match="more bytes"):
        list(answer.chunks())


def test_a_packed_part_is_refused(fake_hub: FakeHub, connect: Connect) -> None:
    headers = {"Content-Range": "bytes 0-9/100", "Content-Encoding": "gzip"}
    fake_hub.serve("/x", b"x" * 10, status=206, headers=headers)
    with pytest.raises(RangeRefused, match="encoded"), connect().http.open_range("/x", 0, 10):
        pass


def test_a_range_behind_the_end_is_nothing(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    client = connect()
    with client.http.open_range(client.file_url(REPO, sha, NAME), 5000, 6000) as answer:
        assert (answer.kind, answer.total_bytes, list(answer.chunks())) == ("nothing", 5000, [])
    with pytest.raises(RangeRefused, match="ends before"):
        client.read_range(REPO, sha, NAME, 4990, 5010)


def test_another_entity_gives_the_whole_file_under_if_range(
    fake_hub: FakeHub, connect: Connect, sha: str
) -> None:
    client = connect()
    url = client.file_url(REPO, sha, NAME)
    with client.http.open_range(url, 0, 10) as answer:
        condition = {"If-Range": answer.etag}
    with client.http.open_range(url, 10, 20, headers=condition) as answer:
        assert answer.kind == "part"
    fake_hub.mode("etagflip")
    with client.http.open_range(url, 10, 20, headers=condition) as answer:
        assert answer.kind == "whole"


def test_a_signed_address_is_good_until_it_expires(fake_hub: FakeHub, connect: Connect, sha: str) -> None:
    fake_hub.mode("expire", after=3000, times=1)
    client = connect()
    url = client.file_url(REPO, sha, NAME)
    with client.http.open_range(url, 0, 2000) as answer:
        signed, first = answer.final_url, b"".join(answer.chunks())
    assert signed.startswith(fake_hub.cdn_url)
    with client.http.open_range(signed, 2000, 4000) as answer:
        second = b"".join(answer.chunks())
    with pytest.raises(LinkExpired) as caught, client.http.open_range(signed, 4000, 5000):
        pass
    assert "Signature" not in caught.value.message
    with client.http.open_range(url, 4000, 5000) as answer:
        third = b"".join(answer.chunks())
    assert first + second + third == WEIGHTS


def test_what_the_first_hop_says_of_a_file_is_kept_to_the_last(
    connect: Connect, fake_hub: FakeHub, sha: str
) -> None:
    client = connect()
    facts = client.file_facts(REPO, "main", NAME)
    content = fake_hub.repos["org/name"].commits[sha][NAME]
    assert (facts.commit, facts.size_bytes, facts.sha256) == (sha, 5000, content.sha256)
    small = client.file_facts(REPO, "main", "config.json")
    assert (small.commit, small.size_bytes) == (sha, 2)
    assert small.git_sha1 == fake_hub.repos["org/name"].commits[sha]["config.json"].git_sha1


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (httpx2.ReadError("gone"), LineBroken),
        (httpx2.ReadTimeout("slow"), LineBroken),
        (httpx2.RemoteProtocolError("nonsense"), LineBroken),
        (httpx2.ConnectError("refused"), HubUnreachable),
        (httpx2.ProxyError("refused"), HubUnreachable),
        (httpx2.LocalProtocolError("header 'Bearer S3cretS3cret'"), InvalidAnswer),
        (httpx2.InvalidURL("https://user:S3cretS3cret@host"), InvalidAnswer),
    ],
)
def test_what_the_http_library_raises_is_told_as_our_own(raised: Exception, told: type[HubError]) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise raised

    endpoint = Endpoint.parse("https://hf-mirror.com")
    with Http(endpoint, tries=1, transport=httpx2.MockTransport(fail), token=Token("S3cretS3cret")) as http:
        with pytest.raises(told) as caught:
            http.read("/x", 10)
        assert "S3cretS3cret" not in caught.value.message
        assert "hf-mirror.com" in caught.value.message


# Secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["refuse", "page", "badjson", "http", "loop", "abs308", "expire", "cut", "answer"]
)
def test_no_failure_shows_the_token(
    mode: str, fake_hub: FakeHub, connect: Connect, sha: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hf_S3cretS3cret"
    fake_hub.add_token(secret)
    fake_hub.mode(mode, at=1, after=0, status=500, body=f"you sent Bearer {secret}".encode())
    told: list[str] = []
    client = connect(token=secret, on_wait=lambda _, reason: told.append(reason), on_notice=told.append)
    caplog.set_level(0)
    for ask in (
        lambda: client.resolve(REPO),
        lambda: list(client.search("x")),
        lambda: client.read_file(REPO, sha, NAME, 10_000),
    ):
        try:
            ask()
        except HubError as error:
            told += [error.message, error.hint, str(error), repr(error)]
    told += [repr(client), repr(client.http), str(vars(client.http)), caplog.text]
    assert fake_hub.log[0].headers["authorization"] == f"Bearer {secret}"
    assert not any(secret in text or "Signature=" in text for text in told if text is not caplog.text)
    assert secret not in caplog.text
