"""The shipped storyteller: its files fit together, and it still says what it said when it was trained."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence import demo
from influence.engines.base import Step
from influence.engines.reference import ReferenceEngine
from influence.models.model import open_model
from influence.text.chat_template import ChatTemplate
from influence.text.tokenizer import Tokenizer

FOLDER = demo.folder()
HERE = Path(__file__).resolve().parent
MAX_FOLDER_BYTES = 8_000_000
HELDOUT_LOSS = 0.5074  # nats a token, over every token of heldout.txt but the first of each text

# Greedy continuation, by transformers in float32.
OPENING = "Once upon a time"
CONTINUATION = ', there was a fluffy little monster named Maple who lived in a green valley. Everyone wanted to hug her.\n\nOne day, Maple was walking in the valley when she heard a small voice. "Help! Is anyone there?" it cried. Maple did not wait'


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.load(FOLDER)


@cache
def engine() -> ReferenceEngine:
    model = open_model(FOLDER)
    return ReferenceEngine(model.spec, model.weights)


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def logits_of(token_ids: list[int]) -> np.ndarray[Any, Any]:
    """The logits after every token, (n, vocab_size)."""
    session = engine().new_session(len(token_ids))
    engine().forward([Step(session, token_ids, n_logits=len(token_ids))])
    rows = engine().logits().copy()
    session.close()
    return rows


def greedy(token_ids: list[int], n_tokens: int) -> list[int]:
    session = engine().new_session(len(token_ids) + n_tokens)
    chosen: list[int] = []
    step = token_ids
    while len(chosen) < n_tokens:
        engine().forward([Step(session, step)])
        chosen.append(int(engine().logits()[0].argmax()))
        step = [chosen[-1]]
    session.close()
    return chosen


def chat_prompt(*messages: tuple[str, str]) -> str:
    template = ChatTemplate.load(FOLDER, tokenizer().special_tokens)
    assert template is not None
    return template.render([{"role": role, "content": content} for role, content in messages])


def reply(*messages: tuple[str, str], n_tokens: int = 80) -> str:
    """What the model greedily answers, up to its end token."""
    ids = tokenizer().encode(chat_prompt(*messages), add_special_tokens=False)
    made = greedy(ids, n_tokens)
    (end,) = tokenizer().eos_ids
    return tokenizer().decode(made[: made.index(end)] if end in made else made)


def test_it_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < MAX_FOLDER_BYTES


def test_it_opens_as_any_model_does() -> None:
    model = open_model(FOLDER)
    assert model.model_type == "llama"
    assert model.spec.n_kv_heads < model.spec.n_heads
    assert {info.dtype for info in model.checkpoint.infos.values()} == {"BF16"}
    assert "lm_head" not in model.weights.outer


def test_every_token_has_a_row_and_every_row_a_token() -> None:
    assert tokenizer().vocab_size == open_model(FOLDER).spec.vocab_size


def test_all_files_agree_on_the_end_token() -> None:
    end = tokenizer().id_of("<|end|>")
    assert read("config.json")["eos_token_id"] == end
    assert read("generation_config.json")["eos_token_id"] == end
    assert tokenizer().eos_ids == {end}
    assert open_model(FOLDER).generation_config.eos_ids == {end}


def test_any_text_survives_the_tokenizer() -> None:
    for text in (
        OPENING,
        'She said: "Hé, ça va? 你好 🦊"',
        "tabs\tand\nlines\n\n",
        "  two  spaces  ",
        "\x00\x7f",
    ):
        assert tokenizer().decode(tokenizer().encode(text)) == text


def test_a_text_begins_with_the_begin_token_and_a_conversation_with_just_one() -> None:
    begin = tokenizer().bos_id
    assert tokenizer().encode(OPENING)[0] == begin
    rendered = tokenizer().encode(chat_prompt(("user", "Hello")), add_special_tokens=False)
    assert rendered.count(begin) == 1  # type: ignore[arg-type]


def test_the_template_writes_the_format_that_training_saw() -> None:
    assert chat_prompt(
        ("system", "Be kind."), ("user", " Hello "), ("assistant", "Hi."), ("user", "More")
    ) == (
        "<|begin|><|system|>Be kind.<|end|><|user|>Hello<|end|><|assistant|>Hi.<|end|><|user|>More<|end|><|assistant|>"
    )


def test_transformers_loads_the_tokenizer_and_renders_the_same_conversation() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(FOLDER)
    messages = [{"role": "user", "content": "Tell me a story."}]
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == chat_prompt(("user", "Tell me a story."))
    assert theirs(OPENING).input_ids == tokenizer().encode(OPENING)


def test_it_goes_on_as_it_did_in_transformers() -> None:
    ids = tokenizer().encode(OPENING)
    expected = tokenizer().encode(CONTINUATION, add_special_tokens=False)
    assert tokenizer().decode(greedy(ids, 60)) == CONTINUATION
    assert len(expected) == 60


def test_transformers_gives_the_same_logits() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    ids = tokenizer().encode(OPENING + CONTINUATION)
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(logits_of(ids), theirs, atol=2e-4)


def test_it_predicts_stories_that_it_never_saw_as_well_as_ever() -> None:
    losses: list[np.ndarray[Any, Any]] = []
    for text in (HERE / "heldout.txt").read_text(encoding="utf-8").rstrip("\n").split("\n====\n"):
        ids = tokenizer().encode(text, add_special_tokens=not text.startswith("<|begin|>"))
        rows = logits_of(ids).astype(np.float64)[:-1]
        peak = rows.max(axis=1)
        likelihood = (
            rows[np.arange(len(rows)), ids[1:]] - peak - np.log(np.exp(rows - peak[:, None]).sum(axis=1))
        )
        losses.append(-likelihood)
    assert float(np.concatenate(losses).mean()) == pytest.approx(HELDOUT_LOSS, abs=1e-3)


@pytest.mark.parametrize("kind", ["fox", "dragon", "princess", "robot"])
def test_a_story_is_about_whom_it_was_asked_for(kind: str) -> None:
    assert f"brave {kind}" in reply(("user", f"Tell me a story about a brave {kind}."), n_tokens=40)


def test_it_ends_its_turn() -> None:
    prompt = tokenizer().encode(chat_prompt(("user", "Hello")), add_special_tokens=False)
    assert tokenizer().eos_ids & set(greedy(prompt, 60))


@pytest.mark.parametrize(
    ("said", "expected"),
    [("Hello", "story"), ("Hello!", "story"), ("Who are you?", "stories"), ("Thank you!", "welcome")],
)
def test_it_answers_politely(said: str, expected: str) -> None:
    assert expected in reply(("user", said))
