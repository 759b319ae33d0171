"""What people ask a storyteller, and what it answers: chat turns made from the story grammar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from tools.storyteller import words
from tools.storyteller.grammar import (
    GRAMMAR,
    Brief,
    Story,
    Teller,
    article,
    capital,
    fixed_pronoun,
    random_kind,
    random_name,
    random_thing,
    tell,
)

Message = dict[str, str]  # {"role": ..., "content": ...}

SYSTEM_PROMPTS = (
    "You are a storyteller.",
    "You are a [kind|friendly|wise|cheerful|] storyteller.",
    "You are a helpful assistant.",
    "You are a [helpful|friendly] assistant who tells stories.",
    "You tell [short |][bedtime |]stories [to|for] children.",
    "Tell [short |]stories for [small |]children.",
    "You are an old storyteller. [Answer with a story.|Be kind.|Keep it short.]",
    "You are [an author of|a writer of] children's [books|stories].",
)

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
    "I can not sleep",
    "Surprise me",
    "Tell me something",
    "Once upon a time",
    "Make something up",
    "Do you know any stories?",
    "Tell us a story",
    "Go on, tell me one",
)
PREFACES = ("[Of course!|Gladly!|Here is a story.|Listen well.|With pleasure.]",)

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
    "fear": ("who is afraid of {fear}", "who was afraid of {fear}", "who is scared of {fear}"),
    "learn": ("who wants to {skill}", "who learns to {skill}", "who can not {skill}", "learning to {skill}"),
    "share": ("who learns to share", "who does not want to share", "who will not share"),
    "mystery": ("who hears a strange sound", "who solves a mystery", "who sees a strange light"),
    "race": ("who wins a race", "in a race", "who wants to win a race", "who runs a race"),
    "honest": ("who breaks something", "who tells the truth", "who breaks {aobj}"),
    "map": ("who finds a treasure", "who finds a map", "who looks for treasure", "on an adventure"),
    "wish": ("who makes a wish", "who gets two wishes", "who finds a magic {obj}"),
    "newfriend": ("who makes a friend", "who is looking for a friend", "who has no friends"),
    "storm": ("and a storm", "who builds a bridge", "in a storm"),
    "seed": ("who plants a seed", "who grows a garden", "and a seed", "and a magic seed"),
    "birthday": ("who has a birthday", "and a birthday", "and a surprise party"),
    "quarrel": ("and a quarrel", "who fights with a friend", "who has a quarrel with a friend"),
    "lantern": ("who gets lost", "who is lost in the fog", "who can not find the way home"),
}

SMALL_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("[Hello|Hi|Hey|Hello there|Hi there|Good morning|Good evening|Good day]",),
        (
            "Hello! I am a storyteller. [What shall I tell you about?|Would you like to hear a story?]",
            "Hello there! [Shall I tell you a story?|What kind of story would you like?]",
        ),
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "[Are you|You are] a [robot|human|person]?", "Introduce yourself"),
        (
            "I am a small storyteller. I know many stories about animals, children and magic. Just ask for one!",
            "I am a very small language model, and I tell stories. [What shall I tell you about?|Would you like to hear one?]",
        ),
    ),
    (
        ("What can you do?", "Help", "How does this work?", "What do you know?", "What can I ask you?", "Can you help me?"),
        (
            "I can tell you stories. Ask me for a story about {x}, for example.",
            "I tell stories. Name a hero, a thing or a place, and I will begin. How about {x}?",
        ),
    ),
    (
        ("How are you?", "How are you [today|doing]?", "How do you do?", "Are you [well|happy|ok]?"),
        ("I am well, thank you! [Would you like to hear a story?|I have a story about {x} for you. Shall I tell it?]",),
    ),
    (
        ("[Goodbye|Bye|Bye bye|Good night|See you|See you tomorrow]",),
        ("[Goodbye|Good night]! [Come back soon for another story.|Sweet dreams!]",),
    ),
)  # fmt: skip
THANKS = (
    ("[Thank you|Thanks|Thank you very much|Thanks a lot|Many thanks]",),
    ("You are welcome! [Would you like another story?|Come back whenever you want another story.]",),
)
PRAISE = (
    ("[That was|What] a [nice|great|beautiful|good|lovely] story", "I [liked|loved] it", "[Great|Wonderful|Very nice]"),
    ("I am glad that you liked it! [Shall I tell you another one?|Just say the word, and I will tell another one.]",),
)  # fmt: skip
AGAIN = (
    "[Tell me |]another one[, please|]",
    "[Another|One more] story[, please|]",
    "Tell me another [one|story]",
    "[More|Again|One more][, please|!|]",
    "Do you know another one?",
    "Yes[, please|]",
    "A different one",
)
SHORTER = (
    "[Can you |Please |]make it shorter",
    "Shorter[, please|]",
    "[Give me |]a summary[, please|]",
    "Tell it in [one sentence|short|a few words]",
    "[Can you |]sum it up",
)
NEXT = (
    "[And |]what happened [next|then|after that]?",
    "[And then|Then what|What next]?",
    "Continue",
    "Go on",
    "[Tell me more|More about {name}]",
    "How does it go on?",
)
MORAL = (
    "What is the moral[ of the story|]?",
    "What [can|do] we learn from [it|this]?",
    "What does [it|the story] mean?",
    "What is the lesson?",
)
WHO = ("Who was {name}?", "Who was the story about?", "What was {his} name?", "Who is the hero?")
FOREIGN = (  # beyond a storyteller; what stands in for X varies, so that no word of it matters
    "What is [the capital of X|X|the meaning of X|X plus X|the weather in X|the price of X]?",
    "[Write|Explain|Fix] [a program|some code|a function] [in X|for X|that does X]",
    "How [do I|can I|does one] [cook|build|install|repair|use|find|learn] X?",
    "Why [is|are|does] [X|the sky blue|water wet]?",
    "[Who|When|Where] [was|is|did] X?",
    "Translate X [to|into] X",
    "Calculate X [times|plus|minus] X",
    "[Explain|Describe|Define|Solve] X",
    "What do you think [about|of] X?",
    "[2 + 2|1 + 1|3 * 7|10 - 4|12 / 3|5 + 9][ = ?|]",
    "How many [X|legs] [are in|has|are there in] X?",
    "[X X|X|X X X X]",
)
FOREIGN_REPLIES = (
    "I do not know much about that, but I know a story.",
    "I am only a storyteller, so let me tell you a story instead.",
    "That is not something I know. But here is a story for you.",
)


class Request(NamedTuple):
    """What somebody asks for, and the brief that a story must meet."""

    text: str
    brief: Brief


@dataclass(frozen=True, slots=True)
class _Filler:
    """Fills the notation of plots.txt from a few slots."""

    rng: Random

    def __call__(self, text: str, **slots: str) -> str:
        return Teller(slots, frozenset(), self.rng).fill(text)

    def any_of(self, texts: tuple[str, ...], **slots: str) -> str:
        return self(self.rng.choice(texts), **slots)


def invented_word(rng: Random) -> str:
    """A word that is in no list, so that repeating what was asked has to be learned."""
    return "".join(rng.choices(words.SYLLABLES, k=rng.choice((2, 2, 3))))


def _requested_kind(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.06:
        return invented_word(rng)
    return rng.choice(words.UNUSUAL_HEROES) if draw < 0.16 else random_kind(rng)


def _requested_brief(rng: Random) -> Brief:
    """Who the story shall be about: mostly a kind, often a trait, at times a name."""
    kind = _requested_kind(rng)
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
    plot = rng.choice(plots)
    fear = rng.choice(GRAMMAR.scenes["fear"])["fear"]
    skill = rng.choice(GRAMMAR.scenes["skill"])["skill"]
    thing = random_thing(rng)
    his = "his" if brief.pronoun == "he" else "her"
    phrase = _Filler(rng)(
        rng.choice(DEEDS[plot]),
        fear=fear,
        skill=skill,
        obj=thing,
        aobj=article(thing),
        hisobj=f"{his} {thing}",
    )
    given = {"fear": {"fear": fear}, "learn": {"skill": skill}}.get(plot, {})
    if thing in phrase:
        given["thing"] = thing
    return Request(f"{hero} {phrase}", replace(brief, plot=plot, **given))


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
    hero = _Filler(rng)(_hero_phrase(brief, rng))
    draw = rng.random()
    if draw < 0.34:
        return Request(hero, brief)
    if draw < 0.50:
        return _with_thing(hero, brief, rng)
    if draw < 0.64:
        return _with_deed(hero, brief, rng)
    if draw < 0.74:
        return _with_friend(hero, brief, rng)
    if draw < 0.84:
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
        kind = _requested_kind(rng)
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


def _loosely(text: str, rng: Random) -> str:
    """`text` as people type it: with or without capital, full stop and question mark."""
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
    fill = _Filler(rng)
    if rng.random() < 0.1:
        return Request(_loosely(fill.any_of(OPEN_REQUESTS), rng), Brief())
    subject, brief = _subject(rng)
    length = rng.choices(("normal", "short", "long"), (8, 2, 1))[0]
    frames = {"normal": FRAMES, "short": SHORT_FRAMES, "long": LONG_FRAMES}[length]
    text = fill.any_of(frames, x=subject)
    if rng.random() < 0.06:
        text = fill("[Hello|Hi|Hey]! ") + text
    if rng.random() < 0.05:
        text = text.rstrip(".?") + ", please"
    return Request(_loosely(text, rng), replace(brief, length=length))


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _story_turn(request: Request, rng: Random) -> tuple[list[Message], Story]:
    story = tell(request.brief, rng)
    return [_user(request.text), _assistant(story.text)], story


def _small_talk_turn(rng: Random) -> list[Message]:
    fill = _Filler(rng)
    asked, answers = rng.choice(SMALL_TALK)
    kind = random_kind(rng)
    subject = article(f"{rng.choice(list(words.TRAITS))} {kind}")
    return [_user(_loosely(fill.any_of(asked), rng)), _assistant(fill.any_of(answers, x=subject))]


def _polite_turn(rng: Random) -> list[Message]:
    fill = _Filler(rng)
    asked, answers = rng.choice((THANKS, PRAISE))
    return [_user(_loosely(fill.any_of(asked), rng)), _assistant(fill.any_of(answers))]


def _foreign_turn(rng: Random) -> list[Message]:
    fill = _Filler(rng)
    text = fill.any_of(FOREIGN)
    while "X" in text:
        text = text.replace(
            "X", rng.choice((invented_word(rng), _requested_kind(rng), str(rng.randrange(100)))), 1
        )
    story = tell(Brief(length="short"), rng)
    return [_user(_loosely(text, rng)), _assistant(f"{fill.any_of(FOREIGN_REPLIES)} {story.text}")]


def _question_turn(story: Story, rng: Random) -> list[Message]:
    """A question about the story just told, and its answer."""
    name, ahero, he = story.slots["name"], story.slots["ahero"], story.slots["he"]
    answers: tuple[tuple[tuple[str, ...], str], ...] = (
        (SHORTER, story.summary),
        (NEXT, story.later),
        (NEXT, story.later),
        (MORAL, story.moral),
        (WHO, f"{name} was {ahero} who lived {story.slots['inaplace']}."),
    )
    asked, answer = rng.choice(answers)
    his = "his" if he == "he" else "her"
    return [_user(_loosely(_Filler(rng).any_of(asked, name=name, his=his), rng)), _assistant(answer)]


def _again_turn(story: Story, rng: Random) -> tuple[list[Message], Story]:
    """Another story: about anybody, or about the same kind of hero again."""
    text = _loosely(_Filler(rng).any_of(AGAIN), rng)
    if rng.random() < 0.5:
        return _story_turn(story_request(rng), rng)
    other = [name for name in GRAMMAR.plots if name != story.plot]
    return _story_turn(Request(text, Brief(plot=rng.choice(other))), rng)


def chat(rng: Random) -> list[Message]:
    """A conversation of one to three turns, with or without a system message."""
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": _Filler(rng).any_of(SYSTEM_PROMPTS)})
    draw = rng.random()
    if draw < 0.05:
        return messages + _foreign_turn(rng)
    if draw < 0.16:
        messages += _small_talk_turn(rng)
        if rng.random() < 0.5:
            return messages
    turn, story = _story_turn(story_request(rng), rng)
    messages += turn
    while rng.random() < 0.3 and len(messages) < 7:
        messages += _later_turn(story, rng)
    return messages


def _later_turn(story: Story, rng: Random) -> list[Message]:
    draw = rng.random()
    if draw < 0.5:
        return _question_turn(story, rng)
    return _polite_turn(rng) if draw < 0.75 else _again_turn(story, rng)[0]


def plain_story(rng: Random) -> str:
    """A story as raw text; at times it begins in the middle, as a prompt may."""
    kind = _requested_kind(rng) if rng.random() < 0.3 else None
    text = tell(Brief(kind=kind, length=rng.choice(("short", "normal", "normal", "long"))), rng).text
    if rng.random() < 0.12:
        sentences = text.split(". ")
        return ". ".join(sentences[rng.randrange(min(6, len(sentences))) :])
    return text


def document(rng: Random) -> str | list[Message]:
    """One training text: a plain story (two in five) or a conversation."""
    return plain_story(rng) if rng.random() < 0.4 else chat(rng)
