"""Sessions of earlier requests, kept so that a common prefix is computed once.

A kept session's blocks are only lent: the generator evicts the least recently
used whenever a running sequence needs the room. The engine's law that forking
changes no logit makes the reuse exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from influence.dataclass import dataclass
from influence.engines.base import Engine, Session
from influence.generation.token_ids import Ids, common_prefix, ids_of
from influence.models.spec import ModelSpec

MAX_KEPT = 256  # sessions; a lookup compares with each


@dataclass(frozen=True, eq=False)
class _Kept:
    """A session with what it computed; it equals itself alone."""

    token_ids: Ids  # (session.position,)
    session: Session
    salt: str


@dataclass(frozen=True)
class Prefix:
    """What is known of a prompt: the first `n_tokens` of a kept session."""

    session: Session
    n_tokens: int


class PrefixCache:
    """Owns the sessions it keeps. For the one thread that owns the engine."""

    def __init__(self, engine: Engine, max_blocks: int) -> None:
        """Keep sessions of `max_blocks` blocks in all (blocks that several share count for each)."""
        self._engine = engine
        self._max_blocks = max_blocks
        self._kept: list[_Kept] = []  # least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt_ids: Sequence[int], context: int, salt: str = "") -> Prefix | None:
        """The longest known prefix of the prompt, to fork at once; None if none is known.

        At least the prompt's last token is left to run, so that there are
        logits. Where rope depends on the context, only sessions of the same
        context serve; elsewhere any that is long enough. Of another salt none
        does: how fast an answer comes would tell what others have asked.
        """
        wanted = ids_of(prompt_ids[:-1])
        best, n_best = None, 0
        for kept in self._kept:
            if kept.salt == salt and serves(self._engine.spec, kept.session.context, context):
                n = common_prefix(kept.token_ids, wanted)
                best, n_best = (kept, n) if n > n_best else (best, n_best)
        if best is None:
            return None
        self._touch(best)
        return Prefix(best.session, n_best)

    def put(self, token_ids: Sequence[int], session: Session, salt: str = "") -> None:
        """Take over a session that holds exactly `token_ids`; it may be closed at once."""
        kept = _Kept(ids_of(token_ids), session, salt)
        longer = next((other for other in self._kept if self._covers(other, kept)), None)
        if longer is not None:
            session.close()
            self._touch(longer)
            return
        for shorter in [other for other in self._kept if self._covers(kept, other)]:
            self._drop(shorter)
        self._kept.append(kept)
        while len(self._kept) > MAX_KEPT or self._n_blocks() > self._max_blocks:
            self.evict_one()

    def evict_one(self) -> bool:
        """Close the least recently used session; False if there is none."""
        if not self._kept:
            return False
        self._drop(self._kept[0])
        return True

    def clear(self) -> None:
        while self.evict_one():
            pass

    def _covers(self, longer: _Kept, shorter: _Kept) -> bool:
        """Whether `longer` serves every prompt that `shorter` does."""
        n = len(shorter.token_ids)
        return (
            longer.salt == shorter.salt
            and serves(self._engine.spec, longer.session.context, shorter.session.context)
            and longer.token_ids[:n] == shorter.token_ids
        )

    def _n_blocks(self) -> int:
        pool = self._engine.kv_pool
        return sum(pool.blocks_for(len(kept.token_ids)) for kept in self._kept)

    def _touch(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        self._kept.append(kept)

    def _drop(self, kept: _Kept) -> None:
        self._kept.remove(kept)
        kept.session.close()


def serves(spec: ModelSpec, context: int, wanted: int) -> bool:
    """Whether a session made for `context` can go on as one for `wanted` positions."""
    return context == wanted if spec.rope_depends_on_context else context >= wanted
