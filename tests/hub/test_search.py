"""Searching: pages, doubles, strangers' strings, and answers that are none."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InvalidAnswer, InvalidParameter
from influence.hub.client import MAX_RESULTS
from influence.hub.names import RepoId
from influence.hub.records import ModelSummary, summary_of
from support.fake_hub import FakeHub
from support.hub_clients import Connect


def serve(fake_hub: FakeHub, entries: list[Any]) -> None:
    fake_hub.serve("/api/models", json.dumps(entries).encode())


def test_a_result_holds_what_the_table_shows(fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.add_repo(
        "org/name",
        {},
        gated="manual",
        downloads=12,
        likes=3,
        pipeline_tag="text-generation",
        library_name="transformers",
        tags=["safetensors", "license:mit"],
        safetensors={"parameters": {"BF16": 1_100_048_384, "F32": 16}, "total": 1_100_048_400},
    )
    assert list(connect().search("name")) == [
        ModelSummary(
            id=RepoId("org", "name"),
            downloads=12,
            likes=3,
            pipeline_tag="text-generation",
            library="transformers",
            tags=("safetensors", "license:mit"),
            gated="manual",
            last_modified="2026-01-02T03:04:05.000Z",
            n_parameters_by_dtype={"BF16": 1_100_048_384, "F32": 16},
        )
    ]
    (result,) = connect().search("name")
    assert (result.author, result.n_parameters) == ("org", 1_100_048_400)


def test_words_author_task_and_order_are_asked_for(fake_hub: FakeHub, connect: Connect) -> None:
    list(connect().search("tiny & llama?", limit=7, author="org", sort="likes", task="text-generation"))
    asked = parse_qs(urlsplit(fake_hub.log[0].path).query)
    assert {"safetensors", "gated", "downloads"} <= set(asked.pop("expand"))
    assert asked == {
        "search": ["tiny & llama?"],
        "author": ["org"],
        "pipeline_tag": ["text-generation"],
        "sort": ["likes"],
        "limit": ["7"],
    }


def test_the_hubs_own_client_finds_the_same(fake_hub: FakeHub, connect: Connect) -> None:
    from huggingface_hub import HfApi

    for i in range(30):
        fake_hub.add_repo(f"org{i % 3}/name-{i}", {}, downloads=i)
    theirs = HfApi(endpoint=fake_hub.url, token=False).list_models(search="name", author="org1", limit=8)
    ours = connect().search("name", author="org1", limit=8)
    assert [str(result.id) for result in ours] == [model.id for model in theirs]


def test_pages_are_asked_for_as_they_are_read(fake_hub: FakeHub, connect: Connect) -> None:
    for i in range(1200):
        fake_hub.add_repo(f"org/name-{i}", {})
    results = connect().search("name", limit=1100)
    assert len(list(islice(results, 500))) == 500
    assert len(fake_hub.log) == 1
    assert len(list(results)) == 600
    assert len(fake_hub.log) == 3


def test_ten_thousand_results_are_found_each_once(fake_hub: FakeHub, connect: Connect) -> None:
    for i in range(MAX_RESULTS + 1):
        fake_hub.add_repo(f"org/name-{i}", {})
    results = [str(result.id) for result in connect().search("name", limit=MAX_RESULTS)]
    assert len(set(results)) == len(results) == MAX_RESULTS


@pytest.mark.parametrize("limit", [0, -1, 10**9, MAX_RESULTS + 1])
def test_a_limit_out_of_range_is_refused_before_anything_is_asked(
    limit: int, fake_hub: FakeHub, connect: Connect
) -> None:
    with pytest.raises(InvalidParameter, match="limit"):
        connect().search("x", limit=limit)
    assert fake_hub.log == []


@pytest.mark.parametrize(
    "arguments",
    [{"sort": "size"}, {"query": "a\nb"}, {"query": "x" * 300}, {"author": "\x1b[31m"}, {"task": "\ud800"}],
)
def test_words_that_can_not_be_asked_for_are_refused(arguments: dict[str, str], connect: Connect) -> None:
    with pytest.raises(InvalidParameter):
        connect().search(**{"query": "x", **arguments})


def test_doubles_and_nameless_entries_are_dropped(fake_hub: FakeHub, connect: Connect) -> None:
    serve(
        fake_hub,
        [{"id": "a/b"}, {"id": "a/b"}, {"modelId": "a/c"}, {"id": "../x"}, {"id": 3}, {}, None, [], "a/d"],
    )
    assert [str(result.id) for result in connect().search("x")] == ["a/b", "a/c"]


def test_strings_of_strangers_are_made_fit_for_a_terminal(fake_hub: FakeHub, connect: Connect) -> None:
    evil = "\x1b[2J\x1b]0;title\x07red\u202e\nnext"
    serve(
        fake_hub,
        [
            {"id": "\x1b[31ma/b"},
            {
                "id": "a/c",
                "pipeline_tag": evil,
                "tags": [evil],
                "library_name": evil,
                "lastModified": evil,
                "gated": evil,
            },
        ],
    )
    results = list(connect().search("x"))
    assert str(results[-1].id) == "a/c"
    for result in results:
        texts = [
            str(result.id),
            result.pipeline_tag,
            result.library,
            result.last_modified,
            result.gated,
            *result.tags,
        ]
        assert all(text.isprintable() for text in texts)


@pytest.mark.parametrize("count", [-1, 1.5, "3", None, True, [], 1 << 60, {"x": 1}])
def test_numbers_that_count_nothing_are_left_out(count: object) -> None:
    summary = summary_of(
        {"id": "a/b", "downloads": count, "likes": count, "safetensors": {"parameters": {"F32": count}}}
    )
    assert summary is not None
    assert (summary.downloads, summary.likes, summary.n_parameters) == (0, 0, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
fields = st.sampled_from(
    [
        "id",
        "modelId",
        "downloads",
        "likes",
        "tags",
        "pipeline_tag",
        "gated",
        "private",
        "lastModified",
        "safetensors",
    ]
)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.dictionaries(fields, json_values, max_size=8) | json_values)
def test_any_entry_is_a_result_or_none(entry: Any) -> None:
    summary = summary_of(entry)
    if summary is not None:
        assert summary.downloads >= 0 and summary.likes >= 0
        assert summary.pipeline_tag.isprintable() and all(tag.isprintable() for tag in summary.tags)
        assert summary.gated in ("", "auto", "manual")


@pytest.mark.parametrize("body", [b"{}", b'{"error": "busy"}', b"null", b'"x"'])
def test_an_answer_that_is_no_list_is_refused(body: bytes, fake_hub: FakeHub, connect: Connect) -> None:
    fake_hub.serve("/api/models", body)
    with pytest.raises(InvalidAnswer, match="not the list"):
        list(connect().search("x"))


def test_a_next_page_on_another_host_is_not_visited(fake_hub: FakeHub, connect: Connect) -> None:
    link = f'<{fake_hub.other_url}/api/elsewhere?cursor=1>; rel="next"'
    fake_hub.serve("/api/models", b'[{"id": "org/name"}]', headers={"Link": link})
    results = connect(allowed_hubs=[fake_hub.other_url]).search("name")
    assert str(next(results).id) == "org/name"
    with pytest.raises(InvalidAnswer, match="next page is elsewhere"):
        next(results)
    assert {request.origin for request in fake_hub.log} == {"hub"}


def test_a_recorded_answer_of_the_hub_is_understood(
    fake_hub: FakeHub, connect: Connect, shared_data: Path
) -> None:
    fake_hub.serve("/api/models", (shared_data / "hub-api/recorded/search-list.models.json").read_bytes())
    first, second = connect().search("x")
    assert (str(first.id), first.downloads, first.likes) == ("moonshotai/Kimi-K2-Thinking", 5119, 578)
    assert (second.author, second.pipeline_tag, second.library) == (
        "MiniMaxAI",
        "text-generation",
        "transformers",
    )
    assert "safetensors" in first.tags
    assert first.n_parameters is None


def test_a_recorded_tree_of_the_hub_is_understood(
    fake_hub: FakeHub, connect: Connect, shared_data: Path
) -> None:
    recorded = shared_data / "hub-api/recorded/tree.google-bert_bert-base-uncased@dd4bc8b.json"
    sha = "d" * 40
    fake_hub.serve(f"/api/models/google-bert/bert-base-uncased/tree/{sha}", recorded.read_bytes())
    files = {file.path: file for file in connect().tree(RepoId("google-bert", "bert-base-uncased"), sha)}
    assert files["vocab.txt"].git_sha1 == "fb140275c155a9c7c5a3b3e0e77a9e839594a938"
    weights = files["pytorch_model.bin"]
    assert weights.sha256 == "097417381d6c7230bd9e3557456d726de6e83245ec8b24f529f60198a67b203a"
    assert (weights.size_bytes, weights.git_sha1) == (440473133, None)
    assert len(files) == 5
