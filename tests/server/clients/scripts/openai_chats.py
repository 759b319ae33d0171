"""What OpenAI's Python client gets, as JSON. Arguments: the demo's URL, the URL of a model that calls tools."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai
from pydantic import BaseModel

ASK: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY: Any = {"model": "demo", "messages": ASK, "max_tokens": 12, "temperature": 0}
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "Oslo"]}},
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
]


class Pet(BaseModel):
    name: str
    age: int


SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "pet",
        "schema": {
            "type": "object",
            "properties": {
                "name": {"enum": ["Rex", "Mia"]},
                "age": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}


def called(call: Any) -> dict[str, Any]:
    return {"name": call.function.name, "arguments": json.loads(call.function.arguments)}


def refused(ask: Any) -> dict[str, Any]:
    try:
        ask()
    except openai.APIStatusError as error:
        body: Any = error.body
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "type": body["type"],
            "code": body["code"],
        }
    return {}


def in_turn(url: str, tools_url: str) -> dict[str, Any]:
    """By the client that waits."""
    client = openai.OpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    )
    other = openai.OpenAI(
        base_url=f"{tools_url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    )
    chunks = list(
        client.chat.completions.create(**GREEDY, stream=True, stream_options={"include_usage": True})
    )
    forced = client.chat.completions.create(
        **{**GREEDY, "max_tokens": 300}, tools=TOOLS, tool_choice="required", parallel_tool_calls=False
    )
    free: Any = {"model": "parrot", "messages": ASK, "tools": TOOLS}
    with other.chat.completions.stream(**free) as stream:
        for _ in stream:
            pass
        streamed_call = stream.get_final_completion().choices[0]
    whole_call = other.chat.completions.create(**free).choices[0]
    made = client.chat.completions.create(**{**GREEDY, "max_tokens": 200}, response_format=SCHEMA)
    answer = client.chat.completions.create(**GREEDY)
    text = client.completions.create(model="demo", prompt="Once upon a time", max_tokens=4, temperature=0)
    return {
        "models": [model.id for model in client.models.list()],
        "chat": answer.choices[0].message.content,
        "stream": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "usage": [answer.usage.total_tokens, chunks[-1].usage.total_tokens],  # type: ignore[union-attr]
        "text": text.choices[0].text,
        "forced_call": called(forced.choices[0].message.tool_calls[0]),  # type: ignore[index]
        "free_call": called(whole_call.message.tool_calls[0]),  # type: ignore[index]
        "streamed_call": called(streamed_call.message.tool_calls[0]),  # type: ignore[index]
        "finish_reasons": [whole_call.finish_reason, streamed_call.finish_reason],
        "object": Pet.model_validate_json(made.choices[0].message.content or "").model_dump(),
        "unknown_model": refused(lambda: client.chat.completions.create(**{**GREEDY, "model": "gpt-4"})),
        "bad_value": refused(lambda: client.chat.completions.create(**{**GREEDY, "temperature": -1})),
    }


async def at_once(url: str) -> dict[str, Any]:
    """By the client that does not."""
    async with openai.AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        answer, other = await asyncio.gather(
            client.chat.completions.create(**GREEDY), client.chat.completions.create(**GREEDY)
        )
        stream = await client.chat.completions.create(**GREEDY, stream=True)
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return {
            "async_chat": answer.choices[0].message.content,
            "async_twin": other.choices[0].message.content,
            "async_stream": "".join(pieces),
        }


if __name__ == "__main__":
    found = {"version": openai.__version__, **in_turn(*sys.argv[1:3]), **asyncio.run(at_once(sys.argv[1]))}
    print(json.dumps(found))
