"""The notation that the storyteller's sentences are written in: reading it, and filling it in.

`plots.txt` and `scenes.txt` hold the sentences. Their notation:

    # ...              a comment
    rule NAME          the lines that follow are alternatives for $NAME
    plot NAME          a story, told by its beats in order
    avoid TRAIT ...    the plot does not suit a hero of these traits
    summary, moral     alternatives for the story in a sentence or two, and its lesson
    beat               one of the lines that follow is told
    beat?              ... or left out
    para               a new paragraph begins
    scene KIND         slots that a plot needs besides characters: `slot: text` lines
    (tag) LINE         only where the story has the tag (a trait's group, a thing's kind)
    [a|b|c]            one of these; may nest
    {slot}  {Slot}     what the world says, as it is or with a capital
    $rule              one line of the rule
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

_HERE = Path(__file__).parent
_TOKEN = re.compile(r"\$(\w+)|\{(\w+)\}|\[([^\[\]]*)\]")
_TAGGED = re.compile(r"\((\w+)\) (.*)")


@dataclass(slots=True)
class Plot:
    """One shape of story, as plots.txt gives it."""

    name: str
    avoid: frozenset[str] = frozenset()
    summary: list[str] = field(default_factory=list)
    moral: list[str] = field(default_factory=list)
    beats: list[tuple[str, list[str]]] = field(default_factory=list)  # ("beat" | "beat?" | "para", lines)


@dataclass(slots=True)
class Grammar:
    """The two text files, read."""

    rules: dict[str, list[str]] = field(default_factory=dict)
    plots: dict[str, Plot] = field(default_factory=dict)
    scenes: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def read_grammar(folder: Path = _HERE) -> Grammar:
    """The grammar of `plots.txt` and `scenes.txt`."""
    grammar = Grammar()
    _read_plots((folder / "plots.txt").read_text(encoding="utf-8"), grammar)
    _read_scenes((folder / "scenes.txt").read_text(encoding="utf-8"), grammar)
    return grammar


def _content(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _read_plots(text: str, grammar: Grammar) -> None:
    lines: list[str] = []
    plot = Plot("")
    for line in _content(text):
        word, _, rest = line.partition(" ")
        if word == "rule":
            lines = grammar.rules.setdefault(rest, [])
        elif word == "plot":
            plot = grammar.plots.setdefault(rest, Plot(rest))
        elif word == "avoid":
            plot.avoid = frozenset(rest.split())
        elif line in ("summary", "moral"):
            lines = plot.summary if line == "summary" else plot.moral
        elif line in ("beat", "beat?", "para"):
            lines = []
            plot.beats.append((line, lines))
        else:
            lines.append(line)


def _read_scenes(text: str, grammar: Grammar) -> None:
    scene: dict[str, str] = {}
    for line in _content(text):
        if line.startswith("scene "):
            scene = {}
            grammar.scenes.setdefault(line.removeprefix("scene "), []).append(scene)
        else:
            slot, _, value = line.partition(": ")
            scene[slot] = value


GRAMMAR = read_grammar()


def article(phrase: str) -> str:
    """`phrase` after the right one of "a" and "an"."""
    silent_or_you = phrase.startswith(("honest", "hour", "uni", "useful", "use"))
    vowel = phrase[0] in "aeiou"
    an = vowel != silent_or_you if silent_or_you else vowel
    return f"{'an' if an else 'a'} {phrase}"


def capital(text: str) -> str:
    """`text` with its first letter in upper case."""
    return text[:1].upper() + text[1:]


class Teller:
    """Expands lines for one story: a world of slots, tags, and a source of chance.

    A line of a rule is not told twice in a story while another one is left.
    """

    def __init__(self, slots: dict[str, str], tags: frozenset[str], rng: Random) -> None:
        self.slots = slots
        self.tags = tags
        self.rng = rng
        self._told: set[str] = set()

    def pick(self, lines: list[str]) -> str:
        """One of the lines whose tag fits; tagged ones that fit are preferred half of the time."""
        tagged = [m[2] for line in lines if (m := _TAGGED.match(line)) and m[1] in self.tags]
        plain = [line for line in lines if not _TAGGED.match(line)]
        pool = tagged if tagged and (not plain or self.rng.random() < 0.5) else plain
        line = self.rng.choice([line for line in pool if line not in self._told] or pool)
        self._told.add(line)
        return line

    def tell(self, lines: list[str]) -> str:
        """One of the lines, with everything in it filled in."""
        return self.fill(self.pick(lines))

    def fill(self, text: str) -> str:
        """`text` with its rules, slots and choices replaced, innermost first."""
        while match := _TOKEN.search(text):
            text = text[: match.start()] + self._value(match) + text[match.end() :]
        return text

    def _value(self, match: re.Match[str]) -> str:
        rule, slot, choice = match.groups()
        if rule:
            return self.fill(self.pick(GRAMMAR.rules[rule]))
        if slot:
            value = self.fill(self._slot(slot.lower()))
            return capital(value) if slot[0].isupper() else value
        return str(self.rng.choice(choice.split("|")))

    def _slot(self, name: str) -> str:
        if name != "who":
            return self.slots[name]
        return self.rng.choices((self.slots["name"], self.slots["hero"]), (3, 1))[0]


@dataclass(frozen=True, slots=True)
class Filler:
    """Fills in texts that need only a few slots and no story."""

    rng: Random

    def __call__(self, text: str, **slots: str) -> str:
        return Teller(slots, frozenset(), self.rng).fill(text)

    def any_of(self, texts: tuple[str, ...], **slots: str) -> str:
        return self(self.rng.choice(texts), **slots)
