"""What Ollama's Python client gets, as JSON. Arguments: the demo's URL, the URL of a model that calls tools."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import ollama
from pydantic import BaseModel

ASK: Any = [{"role": "user", "content": "Tell me a story about a fox."}]
OPTIONS: Any = {"temperature": 0, "num_predict": 12}
GREEDY: Any = {"model": "demo", "messages": ASK, "options": OPTIONS}


class Pet(BaseModel):
    name: str
    age: int


SCHEMA: Any = {
    "type": "object",
    "properties": {"name": {"enum": ["Rex", "Mia"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return city


def called(message: Any) -> dict[str, Any]:
    (call,) = message.tool_calls
    return {"name": call.function.name, "arguments": dict(call.function.arguments)}


def refused(ask: Any) -> dict[str, Any]:
    try:
        ask()
    except ollama.ResponseError as error:
        return {"class": type(error).__name__, "status": error.status_code, "message": error.error}
    return {}


def in_turn(url: str, tools_url: str) -> dict[str, Any]:
    """By the client that waits."""
    client, other = ollama.Client(url), ollama.Client(tools_url)
    chunks = list(client.chat(**GREEDY, stream=True))
    answer = client.chat(**GREEDY)
    made = client.chat(**{**GREEDY, "options": {"temperature": 0, "num_predict": 200}}, format=SCHEMA)
    free: Any = {"model": "parrot", "messages": ASK, "tools": [get_weather]}
    streamed = [chunk.message for chunk in other.chat(**free, stream=True) if chunk.message.tool_calls]
    text = client.generate("demo", "Once upon a time", raw=True, options={"temperature": 0, "num_predict": 4})
    pieces = client.generate(
        "demo", "Once upon a time", raw=True, options={"temperature": 0, "num_predict": 4}, stream=True
    )
    return {
        "models": [model.model for model in client.list().models],
        "running": [model.name for model in client.ps().models],
        "architecture": client.show("demo").modelinfo["general.architecture"],  # type: ignore[index]
        "loaded": client.generate("demo").done_reason,
        "chat": answer.message.content,
        "stream": "".join(chunk.message.content or "" for chunk in chunks),
        "usage": [answer.eval_count, chunks[-1].eval_count],
        "text": text.response,
        "streamed_text": "".join(piece.response for piece in pieces),
        "free_call": called(other.chat(**free).message),
        "streamed_call": called(streamed[0]),
        "object": Pet.model_validate_json(made.message.content or "").model_dump(),
        "unknown_model": refused(lambda: client.chat("llama3", ASK)),
        "unknown_in_stream": refused(lambda: list(client.chat("llama3", ASK, stream=True))),
        "bad_value": refused(lambda: client.chat("demo", ASK, options={"temperature": -1})),
    }


async def at_once(url: str) -> dict[str, Any]:
    """By the client that does not."""
    client = ollama.AsyncClient(url)
    answer, other = await asyncio.gather(client.chat(**GREEDY), client.chat(**GREEDY))
    pieces = [chunk.message.content or "" async for chunk in await client.chat(**GREEDY, stream=True)]
    return {
        "async_chat": answer.message.content,
        "async_twin": other.message.content,
        "async_stream": "".join(pieces),
    }


if __name__ == "__main__":
    print(json.dumps({**in_turn(*sys.argv[1:3]), **asyncio.run(at_once(sys.argv[1]))}))
