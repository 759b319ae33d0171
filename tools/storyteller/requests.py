"""How people ask for a story: very many phrasings, each with the brief that the story must meet."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import NamedTuple

from tools.storyteller import words
from tools.storyteller.grammar import Brief, Length, fixed_pronoun, random_kind, random_name, random_thing
from tools.storyteller.notation import GRAMMAR, Filler, article, capital

FRAMES = (
    "Tell me a story about {x}",
    "Tell me a story about {x}",
    "Tell me a story about {x}",
    "[Please |]tell me a [little |nice |bedtime |funny |good |]story about {x}",
    "Tell [us|my daughter|my son|the children] a story about {x}",
    "[Can|Could|Will|Would] you [please |]tell me a [little |bedtime |nice |]story about {x}?",
    "[Can|Could] you [please |]write [me |]a [little |]story about {x}?",
    "[Please |]write [me |]a [little |children's |bedtime |nice |]story about {x}",
    "[Please |]write a [story|tale|fairy tale] about {x}",
    "[Please |]make up a story about {x}",
    "Give me a story about {x}",
    "I [want|would like|'d like] [to hear |]a story about {x}",
    "I [want|would like] to hear about {x}",
    "I [want|need] a [bedtime |]story about {x}",
    "Do you know a story about {x}?",
    "Have you got a story about {x}?",
    "How about a story about {x}?",
    "Let us hear a story about {x}",
    "[A|One] story about {x}, please",
    "[Story|A story|A tale] about {x}",
    "Tell me about {x}",
    "Tell me [a|the] tale of {x}",
    "Create a story about {x}",
    "Write about {x}",
    "My [daughter|son|child|little sister] [loves|wants to hear about] {x}. Tell a story",
    "Now tell me a story about {x}",
    "{x}",
    "{x}, please",
)
SHORT_FRAMES = (
    "Tell me a [short|very short|quick] story about {x}",
    "[Can|Could] you tell me a [short|quick] story about {x}?",
    "[Please |]write a [short|brief|very short] story about {x}",
    "A short story about {x}[, please|]",
    "I want a short story about {x}",
)
SENTENCE_FRAMES = (
    "Tell me a story about {x} in [one sentence|a few words|two sentences]",
    "[Write|Tell me] a [one-sentence|tiny] story about {x}",
    "In one sentence: a story about {x}",
)
LONG_FRAMES = (
    "Tell me a long story about {x}",
    "[Can|Could] you tell me a [long|longer] story about {x}?",
    "[Please |]write a long story about {x}",
)
OPEN_REQUESTS = (
    "Tell me a story",
    "[Please |]tell me a [bedtime |new |nice |good |little |]story",
    "[Can|Could|Will] you tell me a [bedtime |]story?",
    "Write [me |]a story",
    "I want a story",
    "A story, please",
    "Story time!",
    "I am bored",
    "I cannot sleep",
    "Surprise me",
    "Tell me something",
    "Once upon a time",
    "Make something up",
    "Do you know any stories?",
    "Tell us a story",
    "Go on, tell me one",
)
THEMES: dict[str, tuple[str, ...]] = {  # what a request may call a plot
    "lost": ("something that gets lost", "losing something and finding it again"),
    "rescue": ("helping others", "kindness", "someone in trouble", "a rescue", "being kind"),
    "fear": ("courage", "being brave", "being afraid", "overcoming fear", "bravery"),
    "learn": ("learning something new", "not giving up", "practice", "never giving up"),
    "share": ("sharing", "learning to share", "being generous", "food", "greed"),
    "mystery": ("a mystery", "a strange sound in the night", "a secret", "a strange light"),
    "race": ("a race", "winning and losing", "a great race", "running"),
    "honest": ("honesty", "telling the truth", "something that gets broken", "a lie", "a mistake"),
    "map": ("a treasure", "a treasure map", "an adventure", "a treasure hunt", "an old map", "a journey"),
    "wish": ("a wish", "magic", "wishes", "being careful what you wish for"),
    "newfriend": ("friendship", "friends", "a new friend", "being lonely", "making a friend"),
    "storm": ("a storm", "working together", "building a bridge", "teamwork", "a broken bridge"),
    "seed": ("patience", "a seed", "a garden", "a plant that grows", "waiting", "a tree"),
    "birthday": ("a birthday", "a surprise party", "a birthday surprise", "a party"),
    "quarrel": ("a quarrel", "two friends who fight", "saying sorry", "forgiving"),
    "lantern": ("getting lost", "a light in the fog", "finding the way home", "fog"),
}
DEEDS: dict[str, tuple[str, ...]] = {  # "a fox ..."
    "lost": ("who loses {hisobj}", "who lost {hisobj}", "looking for {hisobj}"),
    "rescue": ("who helps others", "who helps a stranger", "who saves someone", "who rescues a friend"),
    "fear": (
        "who is afraid of {fear}",
        "who was afraid of {fear}",
        "who is scared of {fear}",
        "who fears {fear}",
    ),
    "learn": (
        "who wants to {skill}",
        "who learns to {skill}",
        "who wants to learn to {skill}",
        "who learns how to {skill}",
        "who cannot {skill}",
        "learning to {skill}",
    ),
    "share": ("who learns to share", "who does not want to share", "who will not share"),
    "mystery": ("who hears a strange sound", "who solves a mystery", "who sees a strange light"),
    "race": ("who wins a race", "in a race", "who wants to win a race", "who runs a race"),
    "honest": ("who breaks something", "who tells the truth", "who breaks {aobj}"),
    "map": ("who finds a treasure", "who finds a map", "who looks for treasure", "on an adventure"),
    "wish": ("who makes a wish", "who gets two wishes", "who finds a magic {obj}"),
    "newfriend": (
        "who makes a friend",
        "who is looking for a friend",
        "who has no friends",
        "who wants a friend",
    ),
    "storm": ("and a storm", "who builds a bridge", "in a storm"),
    "seed": ("who plants a seed", "who grows a garden", "and a seed", "and a magic seed"),
    "birthday": ("who has a birthday", "and a birthday", "and a surprise party"),
    "quarrel": ("and a quarrel", "who fights with a friend", "who has a quarrel with a friend"),
    "lantern": ("who gets lost", "who is lost in the fog", "who cannot find the way home"),
}


class Request(NamedTuple):
    """What somebody asks for, and the brief that a story must meet."""

    text: str
    brief: Brief


def invented_word(rng: Random) -> str:
    """A word that is in no list, so that repeating what was asked has to be learned."""
    return "".join(rng.choices(words.SYLLABLES, k=rng.choice((2, 2, 3))))


def requested_kind(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.06:
        return invented_word(rng)
    return rng.choice(words.UNUSUAL_HEROES) if draw < 0.16 else random_kind(rng)


def _requested_brief(rng: Random) -> Brief:
    """Who the story shall be about: mostly a kind, often a trait, at times a name."""
    kind = requested_kind(rng)
    pronoun = fixed_pronoun(kind) or rng.choice(("he", "she"))
    name = random_name(kind, pronoun, rng) if rng.random() < 0.2 else None
    if name and rng.random() < 0.15:
        name = capital(invented_word(rng))
    trait = rng.choice(list(words.TRAITS)) if rng.random() < 0.6 else None
    return Brief(kind=kind, name=name, pronoun=pronoun, trait=trait)


def _hero_phrase(brief: Brief, rng: Random) -> str:
    little = "little " if brief.trait not in words.NEVER_LITTLE and rng.random() < 0.15 else ""
    described = f"{brief.trait or ''} {little}{brief.kind}".strip()
    if brief.name is None:
        return article(described)
    name = f"{brief.name} the {described}"
    return rng.choice((f"{article(described)} [named|called] {brief.name}", name))


def _with_deed(hero: str, brief: Brief, rng: Random) -> Request:
    """ "a fox who is afraid of the dark": the plot is asked for, and what it turns on."""
    plots = [name for name in DEEDS if brief.trait not in GRAMMAR.plots[name].avoid]
    plot = rng.choices(plots, [3 if name in ("fear", "learn") else 1 for name in plots])[0]
    fear = rng.choice(GRAMMAR.scenes["fear"])["fear"]
    skill = rng.choice(GRAMMAR.scenes["skill"])["skill"]
    thing = random_thing(rng)
    his = "his" if brief.pronoun == "he" else "her"
    phrase = Filler(rng)(
        rng.choice(DEEDS[plot]),
        fear=fear,
        skill=skill,
        obj=thing,
        aobj=article(thing),
        hisobj=f"{his} {thing}",
    )
    about = replace(
        brief,
        plot=plot,
        fear=fear if plot == "fear" else None,
        skill=skill if plot == "learn" else None,
        thing=thing if thing in phrase else None,
    )
    return Request(f"{hero} {phrase}", about)


def _with_thing(hero: str, brief: Brief, rng: Random) -> Request:
    """ "a girl and a lost kite"; things lead to plots in which they matter."""
    thing = random_thing(rng) if rng.random() < 0.9 else invented_word(rng)
    joiner = rng.choice(("and", "and", "and", "with", "who finds", "who has"))
    adjective = rng.choice((None, None, "lost", "magic", *words.COLORS[:6], *words.THING_ADJECTIVES[:5]))
    if joiner == "who finds":
        plot = rng.choice(("wish", "quarrel"))
    else:
        plot = {"lost": "lost", "magic": "wish"}.get(
            adjective or "", rng.choice(("lost", "lost", "quarrel", "race"))
        )
    described = article(f"{adjective or ''} {thing}".strip())
    shown = None if adjective == "lost" else adjective
    return Request(
        f"{hero} {joiner} {described}", replace(brief, thing=thing, thing_adjective=shown, plot=plot)
    )


def _with_friend(hero: str, brief: Brief, rng: Random) -> Request:
    other = "she" if brief.pronoun == "he" else "he"
    friend = random_kind(rng, pronoun=other, but=brief.kind or "")
    joiner = rng.choice(("and", "and", "and", "who meets", "and {his} friend,", "who becomes friends with"))
    joiner = joiner.replace("{his}", "his" if brief.pronoun == "he" else "her")
    plot = rng.choice(("rescue", "newfriend", "newfriend")) if "who" in joiner else None
    return Request(f"{hero} {joiner} {article(friend)}", replace(brief, friend=friend, plot=plot))


def _with_place(hero: str, brief: Brief, rng: Random) -> Request:
    place = rng.choice(words.PLACES)
    adjective = f"{rng.choice(place.adjectives)} " if rng.random() < 0.2 else ""
    lives = rng.choice(("", "", "who lives ", "who lived ", "living "))
    return Request(
        f"{hero} {lives}{place.preposition} the {adjective}{place.noun}", replace(brief, place=place.noun)
    )


def _subject(rng: Random) -> Request:
    """What a story can be about, from a whole hero to a bare theme."""
    brief = _requested_brief(rng)
    hero = Filler(rng)(_hero_phrase(brief, rng))
    draw = rng.random()
    if draw < 0.24:
        return Request(hero, brief)
    if draw < 0.46:
        return _with_thing(hero, brief, rng)
    if draw < 0.66:
        return _with_deed(hero, brief, rng)
    if draw < 0.78:
        return _with_friend(hero, brief, rng)
    if draw < 0.88:
        return _with_place(hero, brief, rng)
    return _bare_subject(rng)


def _bare_subject(rng: Random) -> Request:
    """A theme, a thing, a place, a name, or a kind in the plural, and nothing else."""
    choice = rng.choice(("theme", "theme", "theme", "thing", "place", "plural", "name"))
    if choice == "theme":
        plot = rng.choice(list(THEMES))
        return Request(rng.choice(THEMES[plot]), Brief(plot=plot))
    if choice == "thing":
        thing = random_thing(rng)
        adjective = rng.choice((None, "lost", "magic", *words.COLORS[:5]))
        plot = {"lost": "lost", "magic": "wish"}.get(adjective or "", rng.choice(("lost", "race", "quarrel")))
        shown = None if adjective == "lost" else adjective
        return Request(
            article(f"{adjective or ''} {thing}".strip()),
            Brief(thing=thing, thing_adjective=shown, plot=plot),
        )
    if choice == "place":
        place = rng.choice(words.PLACES)
        return Request(f"the {place.noun}", Brief(place=place.noun))
    if choice == "plural":
        kind = requested_kind(rng)
        return Request(plural(kind), Brief(kind=kind))
    pronoun = rng.choice(("he", "she"))
    name = random_name("girl", pronoun, rng)
    return Request(name, Brief(name=name, pronoun=pronoun))


def plural(noun: str) -> str:
    """The plural of a kind, as the word lists need it."""
    irregular = {
        "mouse": "mice",
        "fish": "fish",
        "deer": "deer",
        "sheep": "sheep",
        "wolf": "wolves",
        "elf": "elves",
    }
    irregular |= {"goose": "geese", "snowman": "snowmen", "moose": "moose", "potato": "potatoes"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def loosely(text: str, rng: Random) -> str:
    """`text` as people type it: with or without capital, full stop and question mark."""
    text = text.replace("cannot", rng.choice(("cannot", "can't", "can not")))
    draw = rng.random()
    if draw < 0.25:
        text = text[:1].lower() + text[1:]
    elif draw < 0.9:
        text = capital(text)
    if text[-1] in "?!." and rng.random() < 0.12:
        return text[:-1]
    return text + "." if text[-1] not in "?!." and rng.random() < 0.45 else text


def story_request(rng: Random) -> Request:
    """Somebody asks for a story, in one of very many ways."""
    fill = Filler(rng)
    if rng.random() < 0.1:
        return Request(loosely(fill.any_of(OPEN_REQUESTS), rng), Brief())
    subject, brief = _subject(rng)
    lengths: tuple[Length, ...] = ("normal", "short", "long")
    length = rng.choices(lengths, (8, 2, 1))[0]
    frames = {"normal": FRAMES, "short": SHORT_FRAMES, "long": LONG_FRAMES}[length]
    text = fill.any_of(frames, x=subject)
    if rng.random() < 0.06:
        text = fill("[Hello|Hi|Hey]! ") + text
    if rng.random() < 0.05:
        text = text.rstrip(".?") + ", please"
    return Request(loosely(text, rng), replace(brief, length=length))


def sentence_request(rng: Random) -> Request:
    """Somebody asks for a story in a sentence or two."""
    subject, brief = _subject(rng)
    return Request(loosely(Filler(rng).any_of(SENTENCE_FRAMES, x=subject), rng), brief)
