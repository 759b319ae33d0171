"""Sessions, blocks and their counts, for engines whose bookkeeping is in Python.

A block is a number from 0 on; what it holds is the engine's. The native
engine keeps its own books (csrc/kv_cache.h).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from influence.engines.base import Blocks, Engine, KvPool, Session, Step
from influence.errors import ContextFull, InvalidParameter, OutOfMemory

BLOCK_SIZE = 64  # positions


class BlockPool:
    """Which blocks are out, and by how many sessions each is held."""

    def __init__(self, n_blocks: int, block_bytes: int) -> None:
        self.n_blocks = n_blocks
        self.block_bytes = block_bytes
        self._free = list(range(n_blocks - 1, -1, -1))
        self._n_owners = [0] * n_blocks

    @property
    def n_free(self) -> int:
        return len(self._free)

    def require(self, n_blocks: int) -> None:
        """Raise OutOfMemory unless that many are free."""
        if n_blocks > self.n_free:
            raise OutOfMemory("KV cache", n_blocks * self.block_bytes, self.n_free * self.block_bytes)

    def take(self) -> int:
        block = self._free.pop()
        self._n_owners[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more session holds it."""
        self._n_owners[block] += 1

    def is_shared(self, block: int) -> bool:
        return self._n_owners[block] > 1

    def give_back(self, block: int) -> None:
        self._n_owners[block] -= 1
        if self._n_owners[block] == 0:
            self._free.append(block)


class PagedSession(Session):
    """A list of blocks and how many positions of them are filled."""

    def __init__(self, engine: PagedEngine, context: int) -> None:
        self.context = context
        self.engine = engine
        self.blocks: list[int] = []
        self.closed = False
        self._position = 0

    @property
    def position(self) -> int:
        return self._position

    def rewind(self, position: int) -> None:
        self._require_position(position)
        n_kept = -(-position // BLOCK_SIZE)
        for block in self.blocks[n_kept:]:
            self.engine.pool.give_back(block)
        del self.blocks[n_kept:]
        self._position = position

    def fork(self, position: int) -> PagedSession:
        self._require_position(position)
        forked = self.engine.new_session(self.context)
        forked.blocks = self.blocks[: -(-position // BLOCK_SIZE)]
        forked._position = position
        for block in forked.blocks:
            self.engine.pool.share(block)
        return forked

    def read_blocks(self, first: int, n: int) -> Blocks:
        if not 0 <= first <= first + n <= self._position // BLOCK_SIZE:
            raise InvalidParameter("blocks", (first, n), "blocks that are filled")
        return self.engine.read_blocks(self.blocks[first : first + n])

    def append_blocks(self, blocks: Blocks) -> None:
        pool = self.engine.require_open(self).engine.pool
        n_positions = len(blocks) * BLOCK_SIZE
        if self._position % BLOCK_SIZE or blocks.shape[1:] != (pool.block_bytes,):
            raise InvalidParameter("blocks", blocks.shape, "whole blocks at a block's beginning")
        if self._position + n_positions > self.context:
            raise ContextFull(self._position, n_positions, self.context)
        pool.require(len(blocks))
        taken = [pool.take() for _ in range(len(blocks))]
        self.engine.write_blocks(taken, blocks)
        self.blocks += taken
        self._position += n_positions

    def close(self) -> None:
        if not self.closed:
            self.rewind(0)
            self.closed = True

    def n_blocks_needed(self, n_tokens: int) -> int:
        """Blocks that appending so many tokens takes from the pool, a copy of a shared one included."""
        n_new = -(-(self._position + n_tokens) // BLOCK_SIZE) - len(self.blocks)
        return n_new + self._writes_shared

    def reserve(self, n_tokens: int) -> None:
        """Take those blocks; copy the last one first if others hold it too."""
        pool = self.engine.pool
        if self._writes_shared:
            shared, own = self.blocks[-1], pool.take()
            self.engine.copy_block(shared, own)
            pool.give_back(shared)
            self.blocks[-1] = own
        while len(self.blocks) * BLOCK_SIZE < self._position + n_tokens:
            self.blocks.append(pool.take())

    def advance(self, n_tokens: int) -> None:
        self._position += n_tokens

    @property
    def _writes_shared(self) -> bool:
        return self._position % BLOCK_SIZE != 0 and self.engine.pool.is_shared(self.blocks[-1])

    def _require_position(self, position: int) -> None:
        self.engine.require_open(self)
        if not 0 <= position <= self._position:
            raise InvalidParameter("position", position, f"from 0 to {self._position}")


class PagedEngine(Engine):
    """What an engine with such sessions must say: how blocks are kept, and what a batch gives."""

    pool: BlockPool

    @abstractmethod
    def run(self, steps: Sequence[Step]) -> int:
        """Compute checked steps, whose sessions hold the blocks they need and advance after it; rows of logits."""

    @abstractmethod
    def make_session(self, context: int) -> PagedSession:
        """An empty session; the context is checked."""

    @abstractmethod
    def copy_block(self, source: int, target: int) -> None:
        """All layers of one block into another."""

    @abstractmethod
    def read_blocks(self, blocks: Sequence[int]) -> Blocks:
        """Copies of the blocks, (len(blocks), block_bytes)."""

    @abstractmethod
    def write_blocks(self, blocks: Sequence[int], rows: Blocks) -> None:
        """What `read_blocks` gave, into these."""

    @property
    def kv_pool(self) -> KvPool:
        return KvPool(BLOCK_SIZE, self.pool.n_blocks, self.pool.n_free, self.pool.block_bytes)

    def new_session(self, context: int) -> PagedSession:
        if not 1 <= context <= self.spec.max_context:
            raise InvalidParameter("context", context, f"from 1 to {self.spec.max_context}")
        return self.make_session(context)

    def forward(self, steps: Sequence[Step]) -> int:
        sessions = self.checked(steps)
        lengths = [len(step.token_ids) for step in steps]
        self.reserve(sessions, lengths)
        try:
            n_rows = self.run(steps)
        except BaseException:
            for session in sessions:
                session.rewind(session.position)
            raise
        for session, n in zip(sessions, lengths, strict=True):
            session.advance(n)
        return n_rows

    def checked(self, steps: Sequence[Step]) -> list[PagedSession]:
        """The steps' sessions; raises what `forward` says of steps that can't be run."""
        sessions = [self.require_open(step.session) for step in steps]
        if len(set(sessions)) < len(sessions):
            raise InvalidParameter("steps", "two of one session", "of distinct sessions")
        for step in steps:
            self._check(step)
        return sessions

    def reserve(self, sessions: Sequence[PagedSession], lengths: Sequence[int]) -> None:
        """Blocks for so many tokens more of each session, or OutOfMemory and nothing changed."""
        self.pool.require(sum(s.n_blocks_needed(n) for s, n in zip(sessions, lengths, strict=True)))
        for session, n in zip(sessions, lengths, strict=True):
            session.reserve(n)

    def require_open(self, session: Session) -> PagedSession:
        """The session as this engine's own; raises InvalidParameter if it is closed or another engine's."""
        if not isinstance(session, PagedSession) or session.engine is not self or session.closed:
            raise InvalidParameter("session", session, "an open session of this engine")
        return session

    def _check(self, step: Step) -> None:
        n_tokens, session = len(step.token_ids), step.session
        if n_tokens == 0:
            raise InvalidParameter("token_ids", [], "at least one token")
        for token_id in step.token_ids:
            if not 0 <= token_id < self.spec.vocab_size:
                raise InvalidParameter("token_id", token_id, f"from 0 to {self.spec.vocab_size - 1}")
        if not 0 <= step.n_logits <= n_tokens:
            raise InvalidParameter("n_logits", step.n_logits, f"from 0 to {n_tokens}")
        if session.position + n_tokens > session.context:
            raise ContextFull(session.position, n_tokens, session.context)
