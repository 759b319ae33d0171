"""The incremental detokenizer against decoding everything at once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.text.decoder_stages import AtTheEnd, make_chain
from influence.text.stream import IncrementalDetokenizer
from influence.text.tokenizer import Tokenizer
from support.made_tokenizers import all_kinds, write

MADE = sorted(all_kinds())
REAL = ["gpt2", "mistral-7b-v0.1", "phi-2", "phi-3-mini", "tinyllama-1.1b-chat-v1.0"]
SPM = "spm with strip"

given_ids = st.lists(st.integers(0, 2**20), max_size=24)
deterministic = settings(derandomize=True, deadline=None, max_examples=60)


@cache
def made(kind: str) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return Tokenizer.load(write(Path(folder), all_kinds()[kind]))


@cache
def real(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


def pieces(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, prompt)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


def check_join(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> None:
    """The law: what is streamed is decode(all) without decode(prompt), where that is its beginning."""
    whole, before = tokenizer.decode([*prompt, *ids]), tokenizer.decode(prompt)
    if whole.startswith(before):
        assert "".join(pieces(tokenizer, ids, prompt)) == whole[len(before) :]


def spread(tokenizer: Tokenizer, numbers: list[int]) -> list[int]:
    """Numbers as ids, odd ones near the start of the vocabulary, where bytes and special tokens are."""
    return [
        number % (tokenizer.vocab_size if number % 2 else min(tokenizer.vocab_size, 270))
        for number in numbers
    ]


@pytest.mark.parametrize("kind", MADE)
@deterministic
@given(prompt=given_ids, ids=given_ids)
def test_pieces_join_to_the_decoded_whole(kind: str, prompt: list[int], ids: list[int]) -> None:
    tokenizer = made(kind)
    check_join(tokenizer, [], spread(tokenizer, ids))
    check_join(tokenizer, spread(tokenizer, prompt), spread(tokenizer, ids))


@pytest.mark.parametrize("name", REAL)
@deterministic
@given(prompt=given_ids, ids=given_ids)
def test_pieces_join_to_the_decoded_whole_for_real_tokenizers(
    name: str, shared_data: Path, prompt: list[int], ids: list[int]
) -> None:
    tokenizer = real(shared_data / "tokenizers" / name)
    check_join(tokenizer, [], spread(tokenizer, ids))
    check_join(tokenizer, spread(tokenizer, prompt), spread(tokenizer, ids))


@pytest.mark.parametrize("kind", [SPM, "byte-level"])
@deterministic
@given(text=st.text(alphabet="ab é猫🦙\n", max_size=30), cut=st.integers(0, 60))
def test_text_comes_out_as_it_went_in_and_never_by_half_characters(kind: str, text: str, cut: int) -> None:
    tokenizer, text = made(kind), "a" + text
    ids = tokenizer.encode(text, add_special_tokens=False)
    streamed = pieces(tokenizer, ids)
    assert "".join(streamed) == text
    assert all("\ufffd" not in piece for piece in streamed)
    check_join(tokenizer, ids[:cut], ids[cut:])


def test_a_long_sequence_keeps_only_what_is_not_yet_certain() -> None:
    tokenizer = made("byte-level")
    detokenizer = IncrementalDetokenizer(tokenizer)
    ids = tokenizer.encode("ab 猫" * 2000)
    n_late = 0
    text = ""
    for n_pushed, token_id in enumerate(ids, start=1):
        text += detokenizer.push(token_id)
        n_late = (
            max(n_late, len(tokenizer.decode(ids[:n_pushed])) - len(text)) if n_pushed % 97 == 0 else n_late
        )
    assert n_late <= 1
    assert text == "ab 猫" * 2000


def test_a_four_byte_character_comes_whole_with_its_last_byte() -> None:
    tokenizer = made("byte-level")
    ids = tokenizer.encode("🦙")
    assert len(ids) == 4
    assert pieces(tokenizer, ids) == ["", "", "", "🦙", ""]


def test_an_unfinished_character_becomes_one_replacement_character_at_the_end() -> None:
    tokenizer = made("byte-level")
    unfinished = tokenizer.encode("a猫")[:-1]
    assert pieces(tokenizer, unfinished) == ["a", "", "", "\ufffd"]


def test_the_space_before_a_word_is_kept_after_a_prompt_and_dropped_at_the_start() -> None:
    tokenizer = made(SPM)
    word = tokenizer.id_of("▁ab")
    assert word is not None
    assert "".join(pieces(tokenizer, [word])) == "ab"
    assert "".join(pieces(tokenizer, [word], prompt=tokenizer.encode("a"))) == " ab"
    assert "".join(pieces(tokenizer, [word], prompt=[1])) == "ab"


def test_what_the_prompt_ends_with_is_not_told_again() -> None:
    tokenizer = made(SPM)
    prompt = [tokenizer.id_of("a"), tokenizer.id_of("<0x0A>")]
    ids = [tokenizer.id_of("b")]
    assert "".join(pieces(tokenizer, ids, prompt)) == "b"  # type: ignore[arg-type]


def test_a_character_that_the_prompt_began_is_told_when_it_is_finished() -> None:
    tokenizer = made("byte-level")
    ids = tokenizer.encode("猫a")
    assert "".join(pieces(tokenizer, ids[1:], prompt=ids[:1])) == "猫a"


def test_a_long_prompt_gives_the_same_pieces_as_its_end() -> None:
    tokenizer = made(SPM)
    prompt = tokenizer.encode("ab a " * 400)
    ids = tokenizer.encode("ab 猫", add_special_tokens=False)
    check_join(tokenizer, prompt, ids)
    assert pieces(tokenizer, ids, prompt) == pieces(tokenizer, ids, prompt[-80:])


def test_special_tokens_and_ids_without_a_token_are_silent() -> None:
    tokenizer = made("byte-level")
    end = tokenizer.id_of("<|end|>")
    think = tokenizer.id_of("<think>")
    assert end is not None and think is not None
    assert pieces(tokenizer, [end, tokenizer.vocab_size + 7, think]) == ["", "", "<think>", ""]


def test_every_decoder_of_a_real_model_streams_and_does_not_wait_for_the_end(shared_data: Path) -> None:
    for name in REAL:
        tokenizer = real(shared_data / "tokenizers" / name)
        ids = tokenizer.encode("Once upon a time there was a fox", add_special_tokens=False)
        assert all(pieces(tokenizer, ids)[:-1])


def test_only_a_decoder_that_needs_all_tokens_waits_for_the_end() -> None:
    waiting = {kind for kind in MADE if _waits(kind)}
    assert waiting == {"ctc", "fused, then long replace"}


def _waits(kind: str) -> bool:
    chain = made(kind).new_decoder_chain()
    return any(isinstance(stage, AtTheEnd) for stage in chain.stages)


def test_a_chain_without_a_decoder_joins_by_spaces_as_tokenizers_does() -> None:
    chain = make_chain(None, None)
    assert chain.push("a") + chain.push("b") + chain.flush() == "a b"


@pytest.mark.parametrize("kind", ["byte-level", SPM])
def test_special_tokens_that_are_to_be_shown_stand_where_they_came(kind: str) -> None:
    tokenizer = made(kind)
    special = next(i for i in range(tokenizer.vocab_size) if tokenizer.is_special(i))
    ids = [
        *tokenizer.encode("ab", add_special_tokens=False),
        special,
        *tokenizer.encode("b", add_special_tokens=False),
    ]
    shown = IncrementalDetokenizer(tokenizer, [special], shown_ids=frozenset({special}))
    text = "".join([shown.push(token_id) for token_id in ids]) + shown.flush()
    assert text == tokenizer.decode(ids, skip_special_tokens=False)
    assert tokenizer.token(special) in text
    assert "".join(pieces(tokenizer, ids, [special])) == tokenizer.decode(ids)
