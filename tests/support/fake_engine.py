"""An engine small enough to see through: its logits are a hash of the session's history.

The history is read back from the blocks that the session holds, which are
counted, shared and copied as a real KV cache does it: a session that was
forked, rewound or given blocks wrongly gives other logits.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from influence.engines.base import DecodeRun, Engine, KvPool, Session, Step
from influence.engines.choosing import sample_row
from influence.engines.sampling import Draw, Sample
from influence.errors import InvalidParameter, OutOfMemory
from influence.models.spec import ModelSpec, Rope, RopeScaling
from influence.text.tokenizer import Tokenizer

VOCAB = 32


def fake_spec(
    vocab_size: int = VOCAB, max_context: int = 256, scaling: RopeScaling | None = None
) -> ModelSpec:
    return ModelSpec(
        vocab_size=vocab_size,
        hidden_size=8,
        intermediate_size=8,
        n_layers=1,
        n_heads=1,
        n_kv_heads=1,
        head_dim=8,
        max_context=max_context,
        norm="rms",
        norm_eps=1e-5,
        activation="silu",
        gated_mlp=True,
        attention_scale=1.0,
        ropes=(Rope(10_000.0, 8, scaling=scaling or RopeScaling()),),
        layer_rope=(0,),
        layer_window=(None,),
    )


class Block:
    def __init__(self) -> None:
        self.n_owners = 1
        self.token_ids: list[int] = []


class FakeSession(Session):
    """Shares blocks as real sessions do: a fork takes none, and who writes into a shared one copies it."""

    def __init__(self, engine: FakeEngine, context: int) -> None:
        self.engine, self.context = engine, context
        self.blocks: list[Block] = []
        self.closed = False
        self._position = 0

    @property
    def position(self) -> int:
        assert not self.closed, "a closed session is used"
        return self._position

    @property
    def history(self) -> list[int]:
        assert not self.closed, "a closed session is used"
        return [token_id for block in self.blocks for token_id in block.token_ids][: self._position]

    def rewind(self, position: int) -> None:
        self._check(position)
        while len(self.blocks) > self.engine.kv_pool.blocks_for(position):
            self.engine.release(self.blocks.pop())
        self._position = position

    def fork(self, position: int) -> FakeSession:
        self._check(position)
        twin = FakeSession(self.engine, self.context)
        twin.blocks = self.blocks[: self.engine.kv_pool.blocks_for(position)]
        twin._position = position
        for block in twin.blocks:
            block.n_owners += 1
        self.engine.sessions.append(twin)
        return twin

    def close(self) -> None:
        if not self.closed:
            self.rewind(0)
            self.closed = True
            self.engine.sessions.remove(self)

    def read_blocks(self, first: int, n: int) -> np.ndarray:
        assert (first + n) * self.engine.block_size <= self.position
        tokens = [block.token_ids for block in self.blocks[first : first + n]]
        return np.array(tokens, np.int64).reshape(n, self.engine.block_size).view(np.uint8)

    def append_blocks(self, blocks: np.ndarray) -> None:
        if len(blocks) > self.engine.n_free:
            raise OutOfMemory("the KV cache", 64, 0)
        assert self.position % self.engine.block_size == 0
        assert blocks.shape[1] == self.engine.kv_pool.block_bytes
        self.append(blocks.copy().view(np.int64).reshape(-1).tolist())

    def append(self, token_ids: Sequence[int]) -> None:
        for token_id in token_ids:
            n_in_last = self._position % self.engine.block_size
            if n_in_last == 0:
                self.blocks.append(self.engine.take())
            elif self.blocks[-1].n_owners > 1:
                self._copy_last()
            self.blocks[-1].token_ids[n_in_last:] = [token_id]
            self._position += 1

    def _copy_last(self) -> None:
        shared = self.blocks[-1]
        self.blocks[-1] = self.engine.take()
        self.blocks[-1].token_ids = list(shared.token_ids)
        self.engine.release(shared)

    def _check(self, position: int) -> None:
        if not 0 <= position <= self.position:
            raise InvalidParameter("position", position, f"from 0 to {self.position}")


class FakeEngine(Engine):
    """`before_forward(steps)` and `before_sample(draws)` may raise, to play a failing engine.

    A history that contains one of `poison` gives NaN. With an `echo` above 0
    the last two tokens weigh so much that the model repeats itself. One that
    `runs_ahead` does so for every draw that needs no history.
    """

    is_bit_exact = True

    def __init__(self, n_blocks: int = 64, block_size: int = 4, spec: ModelSpec | None = None) -> None:
        self.spec = spec or fake_spec()
        self.description = self.kv_identity = "fake"
        self.block_size, self.n_blocks, self.n_free = block_size, n_blocks, n_blocks
        self.sessions: list[FakeSession] = []
        self.poison: frozenset[int] = frozenset()
        self.echo = 0.0
        self.runs_ahead = False
        self.n_ahead = 0  # steps launched in runs
        self.before_forward: Callable[[Sequence[Step]], Any] = lambda steps: None
        self.before_sample: Callable[[Sequence[Draw]], Any] = lambda draws: None
        self.batches: list[list[int]] = []  # tokens of each step of each forward
        self.n_tokens = 0
        self._rows = np.empty((0, self.spec.vocab_size), np.float32)

    @property
    def kv_pool(self) -> KvPool:
        return KvPool(self.block_size, self.n_blocks, self.n_free, block_bytes=8 * self.block_size)

    def take(self) -> Block:
        if self.n_free == 0:
            raise OutOfMemory("the KV cache", 64, 0)
        self.n_free -= 1
        return Block()

    def release(self, block: Block) -> None:
        block.n_owners -= 1
        assert block.n_owners >= 0, "a block is given back twice"
        self.n_free += block.n_owners == 0

    def new_session(self, context: int) -> FakeSession:
        assert 1 <= context <= self.spec.max_context
        self.sessions.append(FakeSession(self, context))
        return self.sessions[-1]

    def forward(self, steps: Sequence[Step]) -> int:
        self.before_forward(steps)
        assert len({id(step.session) for step in steps}) == len(steps)
        rows = [row for step in steps for row in self._run(step)]
        self.batches.append([len(step.token_ids) for step in steps])
        self.n_tokens += sum(self.batches[-1])
        self._rows = np.array(rows, np.float32).reshape(-1, self.spec.vocab_size)
        return len(rows)

    def logits(self) -> np.ndarray:
        return self._rows

    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        self.before_sample(draws)
        return [sample_row(self._rows[draw.row], draw) for draw in draws]

    def decode_ahead(self, steps: Sequence[Step], draws: Sequence[Draw]) -> FakeRun | None:
        needs_host = any(draw.allowed is not None or draw.params.counts_tokens for draw in draws)
        return FakeRun(self, steps, draws) if self.runs_ahead and not needs_host else None

    def close(self) -> None:
        assert not self.sessions

    def logits_after(self, history: Sequence[int], context: int) -> np.ndarray:
        """(vocab_size,): what the model says after these tokens."""
        if self.poison.intersection(history):
            return np.full(self.spec.vocab_size, np.nan, np.float32)
        context = context if self.spec.rope_depends_on_context else 0
        row = 3 * self._noise([context, *history])
        return row + np.float32(self.echo) * self._noise(history[-2:]) if self.echo else row

    def _noise(self, numbers: Sequence[int]) -> np.ndarray:
        """(vocab_size,): a hash of the numbers."""
        seed = zlib.crc32(np.array(numbers, np.int64).tobytes())
        return np.random.default_rng(seed).standard_normal(self.spec.vocab_size, np.float32)

    def _run(self, step: Step) -> list[np.ndarray]:
        session = step.session
        assert isinstance(session, FakeSession)
        assert step.token_ids
        assert session.position + len(step.token_ids) <= session.context, "beyond the context"
        session.append(step.token_ids)
        history = session.history
        ends = range(len(history) - step.n_logits + 1, len(history) + 1)
        return [self.logits_after(history[:end], session.context) for end in ends]


class FakeRun(DecodeRun):
    """Computes each step when it is launched, and says nothing of it before it is taken."""

    def __init__(self, engine: FakeEngine, steps: Sequence[Step], draws: Sequence[Draw]) -> None:
        self.engine, self.steps, self.draws = engine, list(steps), list(draws)
        self.in_flight: list[list[Sample] | Exception] = []
        self.launch()

    @property
    def n_in_flight(self) -> int:
        return len(self.in_flight)

    def launch(self) -> None:
        self.engine.n_ahead += 1
        self.engine.forward(self.steps)
        try:
            samples = self.engine.sample(self.draws)
        except Exception as error:
            self.in_flight.append(error)
            samples = [Sample(0, None) for _ in self.draws]
        else:
            self.in_flight.append(samples)
        both = list(zip(self.steps, samples, strict=True))
        self.steps = [Step(step.session, [sample.token_id]) for step, sample in both]
        self.draws = [replace(draw, position=draw.position + 1) for draw in self.draws]

    def take(self) -> list[Sample]:
        found = self.in_flight.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


# One token, one piece: letters, a space, and characters that two or three tokens make up.
PIECES = [
    *(bytes([letter]) for letter in b"abcdefghijklmnop"),
    b" ",
    b"ab",
    b"the ",
    "é".encode()[:1],
    "é".encode()[1:],
    "€".encode()[:1],
    "€".encode()[1:2],
    "€".encode()[2:],
    "ü€".encode(),
    b"\xff",
    "\U0001f600".encode()[:3],
    "\U0001f600".encode()[3:],
    b"xyz",
    b"z",
    b"",
    b".",
]
assert len(PIECES) == VOCAB


def whole_text(token_ids: Sequence[int]) -> str:
    return b"".join(PIECES[token_id] for token_id in token_ids).decode("utf-8", "replace")


class FakeDetokenizer:
    """Whole characters of PIECES as they become certain, by the standard library's decoder."""

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        prompt_ids: Sequence[int] = (),
        *,
        shown_ids: frozenset[int] = frozenset(),
    ) -> None:
        import codecs

        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._decoder.decode(PIECES[token_id])

    def flush(self) -> str:
        return self._decoder.decode(b"", True)
