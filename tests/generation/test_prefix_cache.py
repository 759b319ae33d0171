"""What the prefix cache keeps, finds and gives back."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from influence.generation.prefix_cache import PrefixCache
from influence.models.spec import RopeScaling
from support.fake_engine import FakeEngine, FakeSession, fake_spec

PROPERTY = settings(derandomize=True, deadline=None)


def session_of(engine: FakeEngine, token_ids: Sequence[int], context: int = 256) -> FakeSession:
    session = engine.new_session(context)
    session.append(token_ids)
    return session


def cache_of(engine: FakeEngine, *histories: Sequence[int], max_blocks: int = 1000) -> PrefixCache:
    cache = PrefixCache(engine, max_blocks)
    for history in histories:
        cache.put(history, session_of(engine, history))
    return cache


def forked(cache: PrefixCache, prompt: Sequence[int], context: int = 256, salt: str = "") -> list[int] | None:
    prefix = cache.find(prompt, context, salt)
    session = None if prefix is None else prefix.session.fork(prefix.n_tokens)
    return session.history if isinstance(session, FakeSession) else None


def test_the_longest_common_prefix_is_found() -> None:
    cache = cache_of(FakeEngine(), [1, 2, 3], [1, 2, 4, 5, 6], [7])
    assert forked(cache, [1, 2, 4, 5, 9]) == [1, 2, 4, 5]
    assert forked(cache, [1, 2, 3, 3]) == [1, 2, 3]
    assert forked(cache, [8, 1, 2]) is None


def test_the_last_token_of_a_prompt_is_always_left_to_run() -> None:
    cache = cache_of(FakeEngine(), [1, 2, 3])
    assert forked(cache, [1, 2, 3]) == [1, 2]
    assert forked(cache, [1, 2]) == [1]
    assert forked(cache, [1]) is None


def test_a_session_that_a_longer_one_covers_is_not_kept() -> None:
    engine = FakeEngine()
    cache = cache_of(engine, [1, 2, 3], [1, 2], [1, 2, 3, 4], [9])
    assert sorted(len(session.history) for session in engine.sessions) == [1, 4]
    cache.clear()
    assert engine.n_free == engine.n_blocks


def test_the_least_recently_used_goes_first() -> None:
    cache = cache_of(FakeEngine(), [1, 1], [2, 2], [3, 3])
    assert forked(cache, [1, 1, 1]) == [1, 1]
    assert cache.evict_one()
    assert forked(cache, [2, 2, 2]) is None
    assert cache.evict_one()
    assert forked(cache, [3, 3, 3]) is None
    assert forked(cache, [1, 1, 1]) == [1, 1]
    assert cache.evict_one()
    assert not cache.evict_one()


def test_being_offered_again_counts_as_use() -> None:
    engine = FakeEngine()
    cache = cache_of(engine, [1, 1], [2, 2], [1, 1])
    assert cache.evict_one()
    assert forked(cache, [2, 2, 2]) is None
    assert forked(cache, [1, 1, 1]) == [1, 1]


def test_the_budget_is_in_blocks() -> None:
    engine = FakeEngine(block_size=4)
    cache = cache_of(engine, [1] * 8, [2] * 8, [3] * 4, max_blocks=4)
    assert sorted(session.history[0] for session in engine.sessions) == [2, 3]
    assert len(cache) == 2


def test_a_budget_of_nothing_keeps_nothing() -> None:
    engine = FakeEngine()
    cache = cache_of(engine, [1, 2, 3], max_blocks=0)
    assert (len(cache), engine.n_free) == (0, engine.n_blocks)


def test_a_shorter_context_does_not_serve_a_longer_request() -> None:
    engine = FakeEngine()
    cache = PrefixCache(engine, 100)
    cache.put([1, 2, 3], session_of(engine, [1, 2, 3], context=16))
    assert forked(cache, [1, 2, 3, 4], context=32) is None
    assert forked(cache, [1, 2, 3, 4], context=8) == [1, 2, 3]


def test_where_rope_depends_on_the_context_only_the_same_context_serves() -> None:
    engine = FakeEngine(spec=fake_spec(scaling=RopeScaling("dynamic", 2.0, original_max_context=64)))
    cache = PrefixCache(engine, 100)
    cache.put([1, 2, 3], session_of(engine, [1, 2, 3], context=64))
    cache.put([1, 2], session_of(engine, [1, 2], context=256))
    assert forked(cache, [1, 2, 3, 4], context=64) == [1, 2, 3]
    assert forked(cache, [1, 2, 3, 4], context=256) == [1, 2]
    assert forked(cache, [1, 2, 3, 4], context=32) is None


def test_prefixes_of_one_salt_serve_no_other() -> None:
    engine = FakeEngine()
    cache = PrefixCache(engine, 100)
    cache.put([1, 2, 3], session_of(engine, [1, 2, 3]), "anna")
    cache.put([1, 2], session_of(engine, [1, 2]), "ben")
    assert forked(cache, [1, 2, 3, 4], salt="anna") == [1, 2, 3]
    assert forked(cache, [1, 2, 3, 4], salt="ben") == [1, 2]
    assert forked(cache, [1, 2, 3, 4]) is None
    assert len(cache) == 2  # the longer one covers none of another salt


HISTORIES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12)


@PROPERTY
@given(HISTORIES, st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(1, 12))
def test_within_its_budget_it_finds_what_a_search_of_all_histories_finds(
    histories: list[list[int]], prompt: list[int], max_blocks: int
) -> None:
    engine = FakeEngine(n_blocks=1000)
    cache = cache_of(engine, *histories, max_blocks=1000)
    wanted = prompt[:-1]
    longest = max((n for n in range(len(wanted) + 1) for h in histories if h[:n] == wanted[:n]), default=0)
    assert (forked(cache, prompt) or []) == wanted[:longest]

    small = cache_of(engine, *histories, max_blocks=max_blocks)
    found = forked(small, prompt) or []
    assert found == wanted[: len(found)]
    cache.clear()
    small.clear()
    for session in list(engine.sessions):
        session.close()
    assert engine.n_free == engine.n_blocks
