"""What people ask a storyteller, and what it answers: chat turns made from the story grammar."""

from __future__ import annotations

from random import Random

from tools.storyteller import words
from tools.storyteller.grammar import Brief, Story, random_kind, tell
from tools.storyteller.notation import GRAMMAR, Filler, article
from tools.storyteller.requests import (
    Request,
    invented_word,
    loosely,
    requested_kind,
    sentence_request,
    story_request,
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

SMALL_TALK: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("[Hello|Hi|Hey|Hello there|Hi there|Good morning|Good evening|Good day][!|, storyteller|]",),
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
        ("How are you?", "[Hello|Hi], how are you?", "How are you [today|doing]?", "How do you do?", "Are you [well|happy|ok]?"),
        ("I am well, thank you! [Would you like to hear a story?|I have a story about {x} for you. Shall I tell it?]",),
    ),
    (
        ("[Goodbye|Bye|Bye bye|Good night|See you|See you tomorrow][!|]",),
        ("[Goodbye|Good night]! [Come back soon for another story.|Sweet dreams!]",),
    ),
)  # fmt: skip
THANKS = (
    ("[Thank you|Thanks|Thank you very much|Thanks a lot|Many thanks][!|]",),
    ("You are welcome! [Would you like another story?|Come back whenever you want another story.]",),
)
PRAISE = (
    ("[That was|What] a [nice|great|beautiful|good|lovely] story[!|]", "I [liked|loved] it[!|]", "[Great|Wonderful|Very nice][!|]"),
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


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _story_turn(request: Request, rng: Random) -> tuple[list[Message], Story]:
    story = tell(request.brief, rng)
    return [_user(request.text), _assistant(story.text)], story


def _small_talk_turn(rng: Random) -> list[Message]:
    fill = Filler(rng)
    asked, answers = rng.choice(SMALL_TALK)
    kind = random_kind(rng)
    subject = article(f"{rng.choice(list(words.TRAITS))} {kind}")
    return [_user(loosely(fill.any_of(asked), rng)), _assistant(fill.any_of(answers, x=subject))]


def _polite_turn(rng: Random) -> list[Message]:
    fill = Filler(rng)
    asked, answers = rng.choice((THANKS, PRAISE))
    return [_user(loosely(fill.any_of(asked), rng)), _assistant(fill.any_of(answers))]


def _foreign_turn(rng: Random) -> list[Message]:
    fill = Filler(rng)
    text = fill.any_of(FOREIGN)
    while "X" in text:
        text = text.replace(
            "X", rng.choice((invented_word(rng), requested_kind(rng), str(rng.randrange(100)))), 1
        )
    story = tell(Brief(length="short"), rng)
    return [_user(loosely(text, rng)), _assistant(f"{fill.any_of(FOREIGN_REPLIES)} {story.text}")]


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
    return [_user(loosely(Filler(rng).any_of(asked, name=name, his=his), rng)), _assistant(answer)]


def _again_turn(story: Story, rng: Random) -> tuple[list[Message], Story]:
    """Another story: about anybody, or about the same kind of hero again."""
    text = loosely(Filler(rng).any_of(AGAIN), rng)
    if rng.random() < 0.5:
        return _story_turn(story_request(rng), rng)
    other = [name for name in GRAMMAR.plots if name != story.plot]
    return _story_turn(Request(text, Brief(plot=rng.choice(other))), rng)


def chat(rng: Random) -> list[Message]:
    """A conversation of one to three turns, with or without a system message."""
    messages: list[Message] = []
    if rng.random() < 0.35:
        messages.append({"role": "system", "content": Filler(rng).any_of(SYSTEM_PROMPTS)})
    draw = rng.random()
    if draw < 0.05:
        return messages + _foreign_turn(rng)
    if draw < 0.16:
        messages += _small_talk_turn(rng)
        if rng.random() < 0.5:
            return messages
    if rng.random() < 0.2:
        request = sentence_request(rng)
        return [*messages, _user(request.text), _assistant(tell(request.brief, rng).summary)]
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
    kind = requested_kind(rng) if rng.random() < 0.3 else None
    text = tell(Brief(kind=kind, length=rng.choice(("short", "normal", "normal", "long"))), rng).text
    if rng.random() < 0.12:
        sentences = text.split(". ")
        return ". ".join(sentences[rng.randrange(min(6, len(sentences))) :])
    return text


def document(rng: Random) -> str | list[Message]:
    """One training text: a plain story (one in four) or a conversation."""
    return plain_story(rng) if rng.random() < 0.25 else chat(rng)
