"""OpenAI's completions, end to end on the demo model: texts continued, and texts scored."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from influence.engines.sampling import Sample
from influence.server import batch
from influence.server.app import create_app
from influence.server.openai_logprobs import LOWEST, CompletionLogprobs, chat_logprobs, token_name
from influence.server.service import Service
from influence.server.settings import Settings
from support.openai_wire import posted, refusal, stream_of
from support.scoring import scored_by_engine, scored_over_wire
from support.scripted import scripted_service
from support.servers import is_free, served_demo, until

PATH = "/v1/completions"
GREEDY: dict[str, Any] = {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0}


def choices(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = posted(client, PATH, {**GREEDY, **body})["choices"]
    assert [choice["index"] for choice in found] == list(range(len(found)))
    return found


def ids_of(client: TestClient, text: str, *, bos: bool = True) -> list[int]:
    body = {"prompt": text, "add_special_tokens": bos}
    tokens: list[int] = client.post("/tokenize", json=body).json()["tokens"]
    return tokens


def test_a_text_is_continued(client: TestClient) -> None:
    answer = posted(client, PATH, {**GREEDY, "model": "demo"})
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"][0]["text"].startswith(", there was")
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 12
    assert answer["usage"]["prompt_tokens"] == len(ids_of(client, GREEDY["prompt"]))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"temperature": 1.2, "seed": 5, "n": 3},
        {"prompt": ["Once", "The fox", "A"], "n": 2, "temperature": 1, "seed": 1},
        {"echo": True},
        {"logprobs": 2},
        {"echo": True, "logprobs": 1},
        {"stop": [" was"]},
        {"regex": "(a|b){4}"},
        {"prompt": ["Once", "The fox"], "echo": True, "logprobs": 0, "max_tokens": 0},
    ],
    ids=lambda body: "+".join(body) or "plain",
)
def test_a_stream_says_the_same_as_a_whole_answer(client: TestClient, body: dict[str, Any]) -> None:
    found = stream_of(client, PATH, {**GREEDY, **body})
    for choice in choices(client, **body):
        own = [c for chunk in found for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        for name, entries in (choice["logprobs"] or {}).items():
            assert [e for piece in own if piece["logprobs"] for e in piece["logprobs"][name]] == entries


def test_a_stream_ends_with_usage_if_it_is_asked_for(client: TestClient) -> None:
    found = stream_of(client, PATH, {**GREEDY, "stream_options": {"include_usage": True}})
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 12
    assert [chunk["usage"] for chunk in found[:-1]] == [None] * (len(found) - 1)


def test_a_prompt_may_be_token_ids_or_several_prompts(client: TestClient) -> None:
    (text,) = (choice["text"] for choice in choices(client))
    ids = ids_of(client, GREEDY["prompt"])
    other = ids_of(client, "The fox")
    assert choices(client, prompt=ids)[0]["text"] == text
    both = choices(client, prompt=[ids, other])
    assert [choice["text"] for choice in both] == [text, choices(client, prompt="The fox")[0]["text"]]
    assert [c["text"] for c in choices(client, prompt=[GREEDY["prompt"], "The fox"])] == [
        c["text"] for c in both
    ]


def test_choices_of_several_prompts_stand_in_the_prompts_order(client: TestClient) -> None:
    body = {"n": 2, "temperature": 1.3, "seed": 9}
    together = [choice["text"] for choice in choices(client, prompt=["Once", "The fox"], **body)]
    apart = [
        choice["text"] for prompt in ("Once", "The fox") for choice in choices(client, prompt=prompt, **body)
    ]
    assert together == apart


def test_an_echo_is_the_prompt_before_the_completion(client: TestClient) -> None:
    (plain,) = choices(client)
    assert choices(client, echo=True)[0]["text"] == GREEDY["prompt"] + plain["text"]
    ids = ids_of(client, GREEDY["prompt"], bos=False)
    assert choices(client, prompt=ids, echo=True)[0]["text"].startswith(GREEDY["prompt"])


def test_the_best_of_several_is_the_likeliest(client: TestClient) -> None:
    body = {"temperature": 1.5, "seed": 3, "logprobs": 0}
    made = choices(client, n=4, **body)

    def likelihood(choice: dict[str, Any]) -> float:
        logprobs = choice["logprobs"]["token_logprobs"]
        return float(sum(logprobs) / len(logprobs))

    best = sorted(made, key=likelihood, reverse=True)
    assert [c["text"] for c in choices(client, best_of=4, **body)] == [best[0]["text"]]
    assert [c["text"] for c in choices(client, best_of=4, n=2, **body)] == [c["text"] for c in best[:2]]


# Scoring.


@pytest.mark.parametrize("text", ["Once upon a time, there was a fox.", "zebra 猫 x", "the the the"])
def test_a_text_is_scored_as_the_engine_scores_it(client: TestClient, service: Service, text: str) -> None:
    ids = ids_of(client, text)
    (over_wire, is_greedy), (own, own_is_greedy) = scored_over_wire(client, [ids])[0], scored_by_engine(ids)
    assert over_wire == pytest.approx(own, abs=1e-4)
    assert is_greedy == own_is_greedy


def test_every_token_of_a_scored_prompt_has_an_entry_and_one_more_follows(client: TestClient) -> None:
    ids = ids_of(client, "Once upon a time, there was a fox.")
    (choice,) = choices(client, prompt=[ids], max_tokens=1, logprobs=1, echo=True)
    logprobs = choice["logprobs"]
    assert {len(logprobs[name]) for name in logprobs} == {len(ids) + 1}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["text_offset"] == sorted(logprobs["text_offset"])


def test_the_token_itself_is_in_its_table_with_the_same_number(client: TestClient) -> None:
    ids = ids_of(client, "Once upon a zebra 猫, there the fox")
    (choice,) = choices(client, prompt=[ids], max_tokens=1, logprobs=1, echo=True)
    rows = list(zip(choice["logprobs"]["token_logprobs"], choice["logprobs"]["top_logprobs"], strict=True))[
        1:
    ]
    assert all(logprob in table.values() for logprob, table in rows)
    assert {logprob == max(table.values()) for logprob, table in rows} == {True, False}


def test_an_end_token_has_its_entry_too() -> None:
    with (
        scripted_service() as (service, engine),
        TestClient(create_app(service), base_url="http://localhost") as client,
    ):
        engine.say("")
        prompt = ids_of(client, "<|assistant|>")
        (choice,) = posted(
            client, PATH, {"prompt": [prompt], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
        )["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["tokens"] == [
        *(["<|begin|>"] if len(prompt) == 2 else []),
        "<|assistant|>",
        "<|end|>",
    ]


def test_a_likely_continuation_is_called_greedy_and_an_unlikely_one_is_not(client: TestClient) -> None:
    context = ids_of(client, "Once upon a time")
    likely = ids_of(client, choices(client, max_tokens=3)[0]["text"], bos=False)
    ids = [[*context, *likely], [*context, *reversed(likely)]]
    assert [greedy for _, greedy in scored_over_wire(client, ids, [len(context)] * 2)] == [True, False]


def test_tokens_of_one_name_keep_their_entries(service: Service) -> None:
    tokenizer = service.tokenizer
    space = tokenizer.encode(" ", add_special_tokens=False)[0]
    sample = Sample(space, -3.0, ((5, -1.0), (space, -3.0)))
    twin = Sample(tokenizer.vocab_size + 1, -4.0, ((tokenizer.vocab_size + 2, -1.0),))  # both without a name
    made = CompletionLogprobs(tokenizer).of([sample, twin], [space, twin.token_id])
    assert len(made["top_logprobs"][0]) == 2
    assert sorted(made["top_logprobs"][1].values()) == [-4.0, -1.0]


def test_a_token_that_can_not_be_is_a_number_that_json_can_say(service: Service) -> None:
    made = chat_logprobs([Sample(5, float("-inf"), ((5, float("-inf")),))], service.tokenizer)
    assert made["content"][0]["logprob"] == LOWEST
    assert made["content"][0]["top_logprobs"][0]["logprob"] == LOWEST


def test_a_part_of_a_character_is_named_by_its_bytes() -> None:
    assert token_name("猫".encode()) == "猫"
    assert token_name("猫".encode()[:2]) == "bytes:\\xe7\\x8c"


# Many prompts.


def test_more_prompts_than_places_take_turns() -> None:
    with (
        served_demo(max_unfinished=3, max_running=2) as small,
        TestClient(create_app(small), base_url="http://localhost") as client,
    ):
        prompts = [f"Once upon {number}" for number in range(10)]
        found = posted(client, PATH, {**GREEDY, "prompt": prompts, "max_tokens": 3})["choices"]
        alone = [
            posted(client, PATH, {**GREEDY, "prompt": prompt, "max_tokens": 3})["choices"][0]["text"]
            for prompt in prompts
        ]
        assert [choice["text"] for choice in found] == alone
        until(lambda: is_free(small))


def test_a_bad_prompt_among_many_fails_them_all_and_frees_every_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "MAX_AT_ONCE", 1)
    with served_demo() as service, TestClient(create_app(service), base_url="http://localhost") as client:
        error = refusal(client, PATH, {**GREEDY, "prompt": [[1, 2], [3, 999_999], [4]]})
        assert "vocabulary" in error["message"]
        until(lambda: is_free(service))


REFUSED: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": []}, "prompt"),
    ({"prompt": [[]]}, None),
    ({"prompt": ["a", 5]}, "prompt[1]"),
    ({"prompt": [-1]}, None),
    ({"prompt": [10**30]}, None),
    ({"prompt": None}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"prompt": ["a"] * 1025}, "prompt"),
    ({"suffix": " end"}, "suffix"),
    ({"logprobs": 10**6}, "logprobs"),
    ({"logprobs": -1}, "logprobs"),
    ({"best_of": 0}, "best_of"),
    ({"best_of": 1, "n": 2}, "best_of"),
    ({"best_of": 10**6}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"use_beam_search": True}, "use_beam_search"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_can_not_be_done_is_refused_and_named(
    client: TestClient, body: dict[str, Any], param: str | None
) -> None:
    error = refusal(client, PATH, {**GREEDY, **body})
    if param is not None:
        assert error["param"] == param


def test_the_defaults_of_settings_bound_the_choices(client: TestClient) -> None:
    assert len(choices(client, n=Settings().max_choices, max_tokens=1)) == Settings().max_choices


# The context's end.


@pytest.mark.parametrize(
    ("n_prompt", "max_tokens", "status"), [(1023, 1, 200), (1024, 1, 400), (1024, 0, 200), (1025, 0, 400)]
)
def test_a_prompt_fits_the_context_or_is_refused_with_the_numbers(
    client: TestClient, n_prompt: int, max_tokens: int, status: int
) -> None:
    body = {"prompt": [5] * n_prompt, "max_tokens": max_tokens}
    if status == 200:
        assert posted(client, PATH, body)["usage"]["completion_tokens"] == max_tokens
    else:
        error = refusal(client, PATH, body)
        assert error["code"] == "context_length_exceeded"
        assert f"{n_prompt} tokens" in error["message"] and "1024" in error["message"]


def test_a_completion_that_reaches_the_contexts_end_says_length(client: TestClient) -> None:
    answer = posted(client, PATH, {"prompt": [5] * 1020, "max_tokens": 10**9, "ignore_eos": True})
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["choices"][0]["finish_reason"] == "length"


def test_an_empty_prompt_is_the_beginning_of_a_text(client: TestClient) -> None:
    answer = posted(client, PATH, {**GREEDY, "prompt": ""})
    assert answer["usage"]["prompt_tokens"] == 1
    assert answer["choices"][0]["text"]
