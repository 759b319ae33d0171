"""What Anthropic's Python client gets, as JSON. Arguments: the demo's URL, the URL of a model that calls tools."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import anthropic
from pydantic import BaseModel

ASK: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
GREEDY: Any = {"model": "demo", "messages": ASK, "max_tokens": 12, "extra_body": {"temperature": 0}}
TOOLS: Any = [
    {
        "name": "get_weather",
        "input_schema": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    }
]
SCHEMA: Any = {
    "type": "object",
    "properties": {"name": {"enum": ["Rex", "Mia"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Pet(BaseModel):
    name: str
    age: int


def called(message: Any) -> dict[str, Any]:
    (call,) = (block for block in message.content if block.type == "tool_use")
    return {"name": call.name, "arguments": call.input}


def refused(ask: Any) -> dict[str, Any]:
    try:
        ask()
    except anthropic.APIStatusError as error:
        body: Any = error.body
        return {"class": type(error).__name__, "status": error.status_code, "type": body["error"]["type"]}
    return {}


def in_turn(url: str, tools_url: str) -> dict[str, Any]:
    """By the client that waits."""
    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    other = anthropic.Anthropic(base_url=tools_url, api_key="none", max_retries=0)
    answer = client.messages.create(**GREEDY)
    with client.messages.stream(**GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    longer = {**GREEDY, "max_tokens": 300}
    forced = client.messages.create(
        **longer, tools=TOOLS, tool_choice={"type": "tool", "name": "get_weather"}
    )
    made = client.messages.create(
        **longer, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}
    )
    free: Any = {"model": "parrot", "messages": ASK, "tools": TOOLS, "max_tokens": 300}
    whole_call = other.messages.create(**free)
    with other.messages.stream(**free) as stream:
        streamed_call = stream.get_final_message()
    return {
        "models": [model.id for model in client.models.list()],
        "chat": answer.content[0].text,  # type: ignore[union-attr]
        "stream": text,
        "usage": [answer.usage.output_tokens, final.usage.output_tokens],
        "counted": [
            client.messages.count_tokens(model="demo", messages=ASK).input_tokens,
            client.beta.messages.count_tokens(model="demo", messages=ASK).input_tokens,
            answer.usage.input_tokens,
            final.usage.input_tokens,
        ],
        "forced_call": called(forced),
        "free_call": called(whole_call),
        "streamed_call": called(streamed_call),
        "finish_reasons": [whole_call.stop_reason, streamed_call.stop_reason],
        "object": Pet.model_validate_json(made.content[0].text).model_dump(),  # type: ignore[union-attr]
        "unknown_model": refused(lambda: client.messages.create(**{**GREEDY, "model": "claude"})),
        "bad_value": refused(lambda: client.messages.create(**{**GREEDY, "extra_body": {"temperature": -1}})),
    }


async def at_once(url: str) -> dict[str, Any]:
    """By the client that does not."""
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client:
        answer, other = await asyncio.gather(
            client.messages.create(**GREEDY), client.messages.create(**GREEDY)
        )
        async with client.messages.stream(**GREEDY) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        return {
            "async_chat": answer.content[0].text,  # type: ignore[union-attr]
            "async_twin": other.content[0].text,  # type: ignore[union-attr]
            "async_stream": text,
        }


if __name__ == "__main__":
    print(json.dumps({**in_turn(*sys.argv[1:3]), **asyncio.run(at_once(sys.argv[1]))}))
