"""The story grammar: every story whole, correct where correctness can be checked, and told by its seed."""

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tools.storyteller import words
from tools.storyteller.conversation import chat, document
from tools.storyteller.grammar import SCENES_OF_PLOT, Brief, tell
from tools.storyteller.notation import GRAMMAR, article
from tools.storyteller.requests import plural, story_request

DATA = Path(__file__).resolve().parents[2] / "tools" / "storyteller"
WRITTEN_OUT_PRONOUN = re.compile(r"\b(he|she|him|her|his|hers|himself|herself)\b", re.IGNORECASE)
ARTICLE = re.compile(r"\b(an?) (\w+)", re.IGNORECASE)
N_STORIES = 2000


def _everything_said(number: int) -> str:
    made = document(Random(number))
    return made if isinstance(made, str) else "\n".join(message["content"] for message in made)


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [tell(Brief(), Random(seed)).text for seed in range(N_STORIES)]


def test_the_same_seed_tells_the_same_story() -> None:
    assert [_everything_said(n) for n in range(50)] == [_everything_said(n) for n in range(50)]


def test_different_seeds_tell_different_stories(stories: list[str]) -> None:
    assert len(set(stories)) == N_STORIES


def test_no_slot_choice_or_rule_is_left_unfilled() -> None:
    for number in range(N_STORIES):
        assert not re.search(r"[\[\]{}$|_]", text := _everything_said(number)), text


def test_no_word_or_mark_is_doubled_by_what_is_filled_in(stories: list[str]) -> None:
    for text in stories:
        assert not re.search(r"  |\b(\w+) \1\b(?!,)|[ ,][.,;!?]|[.?!][.,]", text), text


def test_a_and_an_follow_the_sound(stories: list[str]) -> None:
    for text in stories:
        for a, word in ARTICLE.findall(text):
            vowel = (word[0] in "aeiou" and not word.startswith(("uni", "use"))) or word.startswith(
                ("honest", "hour")
            )
            assert (a.lower() == "an") == vowel, f"{a} {word}: {text}"


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [("fox", "a fox"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("honest bee", "an honest bee"),
     ("umbrella", "an umbrella"), ("useful key", "a useful key"), ("hour", "an hour"), ("hat", "a hat")],
)  # fmt: skip
def test_article_of(phrase: str, expected: str) -> None:
    assert article(phrase) == expected


def test_the_texts_name_no_pronoun_that_a_slot_must_choose() -> None:
    lines = [trait.line for trait in words.TRAITS.values()]
    for file in ("plots.txt", "scenes.txt"):
        lines += (DATA / file).read_text(encoding="utf-8").splitlines()
    for line in lines:
        told = re.sub(r"\{\w+\}", "", line)
        assert line.startswith("#") or not WRITTEN_OUT_PRONOUN.search(told), line


def test_hero_and_friend_never_share_a_pronoun_a_name_or_a_kind() -> None:
    for seed in range(N_STORIES):
        slots = tell(Brief(), Random(seed)).slots
        assert slots["he"] != slots["fhe"]
        assert slots["name"] != slots["fname"]
        assert slots["hero"] != slots["friend"]


def test_quotation_marks_come_in_pairs_within_each_paragraph(stories: list[str]) -> None:
    for text in stories:
        for paragraph in text.split("\n\n"):
            assert paragraph.count('"') % 2 == 0, paragraph


def test_every_paragraph_begins_with_a_capital_and_ends_a_sentence(stories: list[str]) -> None:
    for text in stories:
        for paragraph in text.split("\n\n"):
            assert re.match(r'"?[A-Z]', paragraph), paragraph
            assert re.search(r'[.!?]"?$', paragraph), paragraph


def test_what_is_asked_for_is_in_the_story() -> None:
    brief = Brief(
        kind="otter",
        name="Ambrose",
        pronoun="he",
        trait="clumsy",
        thing="lantern",
        place="harbour",
        plot="lost",
    )
    for seed in range(200):
        text = tell(brief, Random(seed)).text
        assert (
            "otter" in text
            and "Ambrose" in text
            and "clumsy" in text
            and "lantern" in text
            and "harbour" in text
        )


@pytest.mark.parametrize("plot", GRAMMAR.plots)
def test_every_line_of_every_plot_can_be_told(plot: str) -> None:
    """Each plot with each trait and each scene, so that no combination lacks a slot."""
    for seed in range(60):
        for length in ("short", "normal", "long"):
            story = tell(Brief(plot=plot, length=length), Random(seed))  # type: ignore[arg-type]
            assert 60 < len(story.text.split()) < 420


def test_plots_traits_and_scenes_refer_to_each_other_correctly() -> None:
    assert set(SCENES_OF_PLOT) <= set(GRAMMAR.plots)
    assert {scene for scenes in SCENES_OF_PLOT.values() for scene in scenes} == set(GRAMMAR.scenes)
    for trait, plots in words.SUITS.items():
        assert trait in words.TRAITS
        assert all(trait not in GRAMMAR.plots[plot].avoid for plot in plots.split())


def test_every_plot_gets_told(stories: list[str]) -> None:
    told = Counter(tell(Brief(), Random(seed)).plot for seed in range(N_STORIES))
    assert set(told) == set(GRAMMAR.plots)
    assert min(told.values()) > N_STORIES / len(told) / 4


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("fox", "foxes"), ("mouse", "mice"), ("wolf", "wolves"), ("pony", "ponies"), ("monkey", "monkeys"),
     ("sheep", "sheep"), ("hippo", "hippos"), ("ostrich", "ostriches"), ("goose", "geese")],
)  # fmt: skip
def test_plural_of(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_a_request_names_what_its_brief_demands() -> None:
    for seed in range(N_STORIES):
        request = story_request(Random(seed))
        kind = request.brief.kind
        if kind is not None:
            assert kind in request.text.lower() or plural(kind) in request.text.lower()
        if request.brief.trait is not None:
            assert request.brief.trait in request.text.lower()


def test_conversations_alternate_and_end_with_the_storyteller() -> None:
    for seed in range(500):
        roles = [message["role"] for message in chat(Random(seed))]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2)
        assert turns
