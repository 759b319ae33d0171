"""A seeded request gets one text: streamed or whole, alone or in company, in every protocol that takes a seed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from support.openai_wire import content, posted, stream_of

PROMPTS = st.sampled_from(
    ["Tell me a story about a fox.", "Hello", "Once upon a time 猫", "a\n\nb", "The owl said: “why?”"]
)
STRUCTURES = st.sampled_from(
    [
        {},
        {"regex": "[a-d é]{2,12}"},
        {"grammar": 'start: "x" ("y" | "z")+'},
        {"response_format": {"type": "json_object"}},
        {"stop": ["e", "\n", " a"]},
        {"stop": " the"},
    ]
)
SAMPLING = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32),
        "max_tokens": st.integers(0, 24),
        "temperature": st.sampled_from([0, 0.5, 1.0, 1.8]),
        "top_k": st.sampled_from([0, 5, 40]),
        "top_p": st.sampled_from([0.5, 0.95, 1.0]),
        "n": st.integers(1, 3),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.7]),
    }
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """(path, body) of a request of any kind."""
    prompt, sampling, structure = draw(PROMPTS), draw(SAMPLING), draw(STRUCTURES)
    messages = [{"role": "user", "content": prompt}]
    match draw(st.sampled_from(["chat", "text", "ollama"])):
        case "chat":
            return "/v1/chat/completions", {**sampling, **structure, "messages": messages}
        case "text":
            prompts = [prompt, draw(PROMPTS)] if draw(st.booleans()) else prompt
            return "/v1/completions", {
                **sampling,
                **structure,
                "prompt": prompts,
                "echo": draw(st.booleans()),
            }
        case _:
            options = {key: value for key, value in sampling.items() if key not in ("n", "max_tokens")}
            stop = structure.get("stop")
            return "/api/chat", {
                "model": "demo",
                "messages": messages,
                "options": {**options, "num_predict": sampling["max_tokens"], "stop": stop},
            }


def whole(client: TestClient, path: str, body: dict[str, Any]) -> list[str]:
    """The text of each choice."""
    if path == "/api/chat":
        return [posted(client, path, {**body, "stream": False})["message"]["content"]]
    choices = posted(client, path, body)["choices"]
    return [choice["text"] if "text" in choice else choice["message"]["content"] for choice in choices]


def streamed(client: TestClient, path: str, body: dict[str, Any]) -> list[str]:
    """The text of each choice, put together from its pieces."""
    if path == "/api/chat":
        lines = client.post(path, json=body).content.splitlines()
        return ["".join(json.loads(line)["message"]["content"] for line in lines)]
    found = stream_of(client, path, body)
    n_choices = 1 + max(choice["index"] for chunk in found for choice in chunk["choices"])
    if path == "/v1/chat/completions":
        return [content(found, index) for index in range(n_choices)]
    pieces = [choice for chunk in found for choice in chunk["choices"]]
    return ["".join(p["text"] for p in pieces if p["index"] == index) for index in range(n_choices)]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(company=st.lists(requests(), min_size=2, max_size=5))
def test_a_seeded_request_gets_the_same_text_streamed_and_whole_alone_and_in_company(
    client: TestClient, company: list[tuple[str, dict[str, Any]]]
) -> None:
    alone = [whole(client, path, body) for path, body in company]
    with ThreadPoolExecutor(2 * len(company)) as pool:
        in_company = [pool.submit(whole, client, path, body) for path, body in company]
        in_streams = [pool.submit(streamed, client, path, body) for path, body in company]
    assert [future.result() for future in in_company] == alone
    assert [future.result() for future in in_streams] == alone
