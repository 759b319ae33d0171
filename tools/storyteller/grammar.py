"""A story grammar: short, correct English stories, billions of them, each from a seed.

`plots.txt` and `scenes.txt` hold the sentences, in the notation of notation.py.
Hero and friend always have different pronouns, so that "he" and "she" are clear.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Literal

from tools.storyteller import words
from tools.storyteller.notation import GRAMMAR, Plot, Teller, article

Length = Literal["short", "normal", "long"]
PRONOUNS = {
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
}
LIMB_PLURALS = {"foot": "feet", "hoof": "hooves"}
SCENES_OF_PLOT = {
    "rescue": ("trouble", "payback"),
    "fear": ("fear",),
    "learn": ("skill",),
    "mystery": ("mystery",),
    "map": ("map", "treasure"),
    "wish": ("wish",),
    "seed": ("plant",),
}
OPTIONAL_BEAT_CHANCE = {"short": 0.0, "normal": 0.5, "long": 1.0}


@dataclass(frozen=True, slots=True)
class Brief:
    """What a story must be about; None leaves it to chance."""

    kind: str | None = None
    name: str | None = None
    pronoun: str | None = None
    trait: str | None = None
    friend: str | None = None  # kind of the second character
    thing: str | None = None
    thing_adjective: str | None = None
    place: str | None = None  # noun
    plot: str | None = None
    fear: str | None = None  # only for the plot "fear"
    skill: str | None = None  # only for the plot "learn"
    length: Length = "normal"


@dataclass(frozen=True, slots=True)
class Story:
    """A told story, and what can be said about it afterwards."""

    text: str
    summary: str
    moral: str
    later: str  # what happened next
    plot: str
    slots: dict[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Character:
    """Somebody in a story."""

    kind: str
    name: str
    pronoun: str  # "he" or "she"
    limb: str  # what things are held with, singular

    @property
    def limbs(self) -> str:
        return LIMB_PLURALS.get(self.limb, self.limb + "s")


def fixed_pronoun(kind: str) -> str:
    """The pronoun that a kind of person has by itself, or ""."""
    return dict(words.PEOPLE).get(kind, "")


def is_person(kind: str) -> bool:
    return kind in dict(words.PEOPLE)


def _limb(kind: str) -> str:
    return next((limb for limb, kinds in words.ANIMALS.items() if kind in kinds), "hand")


def random_kind(rng: Random, *, pronoun: str = "", but: str = "") -> str:
    """A common kind of character that can have `pronoun`, other than `but`."""
    animals = [kind for kinds in words.ANIMALS.values() for kind in kinds]
    people = [kind for kind, _ in words.PEOPLE]
    while True:
        kind = rng.choice(people if rng.random() < 0.35 else animals)
        if kind != but and (not pronoun or fixed_pronoun(kind) in ("", pronoun)):
            return kind


def random_name(kind: str, pronoun: str, rng: Random, but: str = "") -> str:
    """A name that suits, other than `but`."""
    human = is_person(kind) or rng.random() < 0.3
    girls, boys = words.GIRL_NAMES, words.BOY_NAMES
    if not human:
        girls, boys = words.SHE_ANIMAL_NAMES, words.HE_ANIMAL_NAMES
    return rng.choice([name for name in (girls if pronoun == "she" else boys) if name != but])


def _pronoun_of_name(name: str) -> str:
    if name in words.GIRL_NAMES or name in words.SHE_ANIMAL_NAMES:
        return "she"
    return "he" if name in words.BOY_NAMES or name in words.HE_ANIMAL_NAMES else ""


def _cast(brief: Brief, rng: Random) -> tuple[Character, Character]:
    """Hero and friend, of different pronouns and names."""
    pronoun = brief.pronoun or fixed_pronoun(brief.kind or "") or _pronoun_of_name(brief.name or "")
    friend_pronoun = fixed_pronoun(brief.friend or "")
    if not pronoun and friend_pronoun:
        pronoun = _other(friend_pronoun)
    pronoun = pronoun or rng.choice(("he", "she"))
    kind = brief.kind or random_kind(rng, pronoun=pronoun, but=brief.friend or "")
    name = brief.name or random_name(kind, pronoun, rng)
    friend_kind = brief.friend or random_kind(rng, pronoun=_other(pronoun), but=kind)
    friend_name = random_name(friend_kind, _other(pronoun), rng, but=name)
    return (
        Character(kind, name, pronoun, _limb(kind)),
        Character(friend_kind, friend_name, _other(pronoun), _limb(friend_kind)),
    )


def _other(pronoun: str) -> str:
    return "she" if pronoun == "he" else "he"


def _hero_slots(hero: Character, trait: str, rng: Random) -> dict[str, str]:
    described = f"{trait} {hero.kind}".strip()
    with_little = described
    if trait not in words.NEVER_LITTLE and rng.random() < 0.3:
        with_little = f"{trait} {rng.choice(('little', 'little', 'young'))} {hero.kind}".strip()
    line = words.TRAITS[trait].line if trait else "{He} loved to {pastime2}."
    return PRONOUNS[hero.pronoun] | {
        "name": hero.name,
        "hero": f"the {hero.kind}",
        "ahero": article(with_little),
        "trait": trait,
        "traitline": line,
        "thetraithero": f"the {described}",
        "atraitkind": article(described),
        "hand": hero.limb,
        "hands": hero.limbs,
    }


def _friend_slots(friend: Character, rng: Random) -> dict[str, str]:
    adjective = rng.choice(words.FRIEND_ADJECTIVES) if rng.random() < 0.6 else ""
    pronouns = {"f" + slot: word for slot, word in PRONOUNS[friend.pronoun].items()}
    return pronouns | {
        "fname": friend.name,
        "friend": f"the {friend.kind}",
        "afriend": article(f"{adjective} {friend.kind}".strip()),
        "fhand": friend.limb,
    }


def thing_group(noun: str) -> str:
    """ "light" (the wind takes it), "round" (it rolls) or ""."""
    return next((group for group, nouns in words.THINGS.items() if noun.replace(" ", "_") in nouns), "")


def random_thing(rng: Random, but: str = "") -> str:
    """A noun, other than `but`."""
    nouns = [noun.replace("_", " ") for group in words.THINGS.values() for noun in group]
    return rng.choice([noun for noun in nouns if noun != but])


def _thing_slots(brief: Brief, rng: Random) -> dict[str, str]:
    noun = brief.thing or random_thing(rng)
    given = brief.thing_adjective
    color = given if given in words.COLORS else rng.choice(words.COLORS)
    before = given if given not in words.COLORS else None
    if given is None and rng.random() < 0.35:
        before = rng.choice(words.THING_ADJECTIVES)
    other = random_thing(rng, but=noun)
    return {
        "obj": noun,
        "color": color,
        "aobj": article(f"{before} {color} {noun}" if before else f"{color} {noun}"),
        "aobj2": article(f"{rng.choice(words.THING_ADJECTIVES)} {other}"),
        "thisobj2": f"this {other}",
    }


def _place_slots(brief: Brief, rng: Random) -> dict[str, str]:
    place = next((place for place in words.PLACES if place.noun == brief.place), None)
    place = place or rng.choice(words.PLACES)
    adjective = rng.choice(place.adjectives) if rng.random() < 0.7 else ""
    described = f"{adjective} {place.noun}".strip()
    definite = place.noun in words.DEFINITE_PLACES
    return {
        "place": f"the {place.noun}",
        "inplace": f"{place.preposition} the {place.noun}",
        "inaplace": f"{place.preposition} {f'the {described}' if definite else article(described)}",
        "spot": rng.choice(place.spots),
    }


def _scene_slots(plot: str, brief: Brief, rng: Random) -> dict[str, str]:
    slots: dict[str, str] = {}
    for kind in SCENES_OF_PLOT.get(plot, ()):
        scenes = GRAMMAR.scenes[kind]
        wanted = {"fear": brief.fear, "skill": brief.skill}.get(kind)
        slots |= rng.choice([s for s in scenes if wanted in (None, s.get(kind))])
    return slots


def _chance_slots(rng: Random) -> dict[str, str]:
    pastimes = rng.sample(words.PASTIMES, 3)
    return {
        "food": rng.choice(words.FOODS),
        "pastime": pastimes[0],
        "pastime2": pastimes[1],
        "pastime3": pastimes[2],
    }


def _time_slots(opening: str) -> dict[str, str]:
    """Later times of day; an opening that has begun the day already goes on within it."""
    if opening.startswith("One "):
        return {"when": "[That same day|A little later|Before long|Soon]", "whennight": "That night"}
    return {"when": "One [day|morning|afternoon|sunny day|fine day]", "whennight": "One [night|dark night]"}


def _choose_plot(brief: Brief, trait: str, rng: Random) -> Plot:
    if brief.plot:
        return GRAMMAR.plots[brief.plot]
    suiting = words.SUITS.get(trait, "").split()
    if suiting and rng.random() < 0.7:
        return GRAMMAR.plots[rng.choice(suiting)]
    return rng.choice([plot for plot in GRAMMAR.plots.values() if trait not in plot.avoid])


def tell(brief: Brief, rng: Random) -> Story:
    """A story that follows the brief; the same for the same brief and state of `rng`."""
    trait = brief.trait if brief.trait is not None else _random_trait(brief, rng)
    plot = _choose_plot(brief, trait, rng)
    hero, friend = _cast(brief, rng)
    slots = _chance_slots(rng) | _scene_slots(plot.name, brief, rng) | _place_slots(brief, rng)
    slots |= _hero_slots(hero, trait, rng) | _friend_slots(friend, rng) | _thing_slots(brief, rng)
    slots["elder"] = rng.choice([e for e in words.ELDERS if hero.kind not in e and friend.kind not in e])
    group = words.TRAITS[trait].group if trait else "plain"
    teller = Teller(slots, frozenset({group, thing_group(slots["obj"]), "any"}), rng)
    text = _tell_beats(plot, brief.length, teller)
    moral = teller.tell(plot.moral)
    if brief.length != "short" and rng.random() < 0.35:
        text += f"\n\n{moral}"
    summary, later = teller.tell(plot.summary), teller.tell(GRAMMAR.rules["later"])
    return Story(text, summary, moral, later, plot.name, slots)


def _random_trait(brief: Brief, rng: Random) -> str:
    avoid = GRAMMAR.plots[brief.plot].avoid if brief.plot else frozenset()
    if rng.random() < 0.12:
        return ""
    return rng.choice([trait for trait in words.TRAITS if trait not in avoid])


def _tell_beats(plot: Plot, length: Length, teller: Teller) -> str:
    paragraphs: list[list[str]] = [[]]
    for mark, lines in plot.beats:
        if mark == "para":
            paragraphs.append([])
        elif mark == "beat" or teller.rng.random() < OPTIONAL_BEAT_CHANCE[length]:
            if "when" not in teller.slots and paragraphs[0]:
                teller.slots |= _time_slots(paragraphs[0][0])
            paragraphs[-1].append(teller.tell(lines))
    if length == "long":
        paragraphs.append([teller.tell(GRAMMAR.rules["later"])])
    return "\n\n".join(" ".join(sentences) for sentences in paragraphs)
