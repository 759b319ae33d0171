"""The engine boundary: token ids in, logits and chosen tokens out.

    engine = native.load(spec, weights, ...)        the loaded model; immutable
    session = engine.new_session(context=4096)      one timeline of positions
    engine.forward([Step(session, prompt_ids)])     one logit row: the prompt's last position
    [chosen] = engine.sample([Draw(row=0, position=session.position, params=params)])

Ownership: the engine owns weights, KV cache and logits; a session owns its
references to cache blocks until `close()`. One thread at a time may use an
engine and its sessions (`generation/generator.py` is that thread).

The laws, which tests hold every engine to: how tokens are cut into steps, what
else is in the batch, forking and rewinding change no logit. The native engine
keeps them to the bit, for any number of threads.

The engine knows nothing about text, requests or time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from influence.engines.sampling import Draw, Sample
from influence.models.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

KvType = Literal["f32", "f16", "q8"]  # how keys and values are kept
# (n_blocks, KvPool.block_bytes) as the engine lays them out
Blocks: TypeAlias = "npt.NDArray[np.uint8]"


class Session(ABC):
    """A timeline of positions in the KV cache.

    `context` was promised at its making: the most positions it will ever hold.
    It fixes the rope frequencies of models that stretch them by length, so a
    session's logits never depend on how it grew.
    """

    context: int

    @property
    @abstractmethod
    def position(self) -> int:
        """Tokens held, and the position that the next token takes."""

    @abstractmethod
    def rewind(self, position: int) -> None:
        """Forget everything from `position` on; blocks that fall free go back to the pool.

        Raises InvalidParameter unless 0 <= position <= self.position.
        """

    @abstractmethod
    def fork(self, position: int) -> Session:
        """A new session that holds the first `position` tokens of this one.

        Shares the blocks below; whichever writes into a shared block first
        copies it. Same context. Raises InvalidParameter as `rewind` does.
        """

    @abstractmethod
    def read_blocks(self, first: int, n: int) -> Blocks:
        """A copy of the blocks [first, first + n), to be kept and appended to another session.

        Raises InvalidParameter unless all their positions are filled.
        """

    @abstractmethod
    def append_blocks(self, blocks: Blocks) -> None:
        """Go on by blocks that `read_blocks` gave, as if their tokens had been run.

        They must be those of the same positions, after the same tokens, of an
        engine of the same `kv_identity`, spec and weights, and of a session of
        the same context where rope depends on it; nobody checks that here.
        Raises InvalidParameter for another shape or off a block's border,
        ContextFull, and OutOfMemory, having changed nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Give the blocks back. Closing twice is allowed; using a closed session is not."""


@dataclass(frozen=True, slots=True)
class Step:
    """Tokens to append to a session; a prompt, a chunk of one, one decoded token, drafts to verify."""

    session: Session
    token_ids: Sequence[int]  # at least one, each in [0, vocab_size)
    n_logits: int = 1  # logit rows wanted, for the last tokens of the step; 0 for an inner chunk


@dataclass(frozen=True, slots=True)
class KvPool:
    """The KV cache as the scheduler sees it: equal blocks of `block_size` positions."""

    block_size: int
    n_blocks: int
    n_free: int
    block_bytes: int

    def blocks_for(self, n_positions: int) -> int:
        """Blocks that a session of `n_positions` holds."""
        return -(-n_positions // self.block_size)


class DecodeRun(ABC):
    """Decode steps that feed their tokens to themselves, so that the host may be steps behind.

        run = engine.decode_ahead(steps, draws)   the first step is on its way
        run.launch()                              the next, with tokens that nobody has seen yet
        samples = run.take()                      of the oldest step that was not taken

    A session advances with each launch; whoever finds in a sample that it
    should have stopped rewinds it. Any `forward` of the engine ends the run,
    after which what is in flight can still be taken.
    """

    @property
    @abstractmethod
    def n_in_flight(self) -> int:
        """Steps launched and not taken."""

    @abstractmethod
    def launch(self) -> None:
        """One more token of each session; raises ContextFull or OutOfMemory, having changed nothing."""

    @abstractmethod
    def take(self) -> list[Sample]:
        """The tokens of the oldest step in flight, in the order of the draws; raises NumericError as `sample` does."""


class Engine(ABC):
    """A loaded model."""

    spec: ModelSpec
    description: str  # for people: "native avx512_bf16, 8 threads"
    kv_identity: str  # all that a block's bytes depend on beside spec, weights and tokens
    is_bit_exact: bool = False  # whether the laws hold to the bit, and not only to rounding
    # Tokens that a step should have at most: enough that its matrix products are bound by
    # arithmetic, few enough that whoever waits for his next token gets it soon. A CPU's.
    tokens_per_step: int = 256

    @property
    @abstractmethod
    def kv_pool(self) -> KvPool:
        """The state of the KV cache now."""

    @abstractmethod
    def new_session(self, context: int) -> Session:
        """An empty session that will hold at most `context` positions.

        Takes no blocks yet. Raises InvalidParameter unless
        1 <= context <= spec.max_context.
        """

    @abstractmethod
    def forward(self, steps: Sequence[Step]) -> int:
        """Run the steps (of distinct sessions) as one batch; the number of logit rows.

        Rows stand in the order of the steps, and within a step in the order of
        its positions; they stay in the engine until the next `forward`.
        Sessions advance only if all of it succeeds. Raises ContextFull,
        OutOfMemory (no free blocks), InvalidParameter (bad token id, empty step).
        """

    @abstractmethod
    def logits(self) -> npt.NDArray[np.float32]:
        """The rows of the last `forward`, (n_rows, vocab_size); valid until the next one."""

    @abstractmethod
    def sample(self, draws: Sequence[Draw]) -> list[Sample]:
        """Choose a token for each draw from the rows of the last `forward`.

        Raises NumericError if a row holds NaN, or infinity above.
        """

    def decode_ahead(self, steps: Sequence[Step], draws: Sequence[Draw]) -> DecodeRun | None:
        """Begin a run of decode steps; None if the engine gains nothing by it, or these draws need the host.

        Steps of one token and one logit row each, a draw for each row: what
        `forward` and `sample` would take. Raises what they raise.
        """
        return None

    @property
    def is_usable(self) -> bool:
        """False once nothing can be run any more, because a part of the engine is gone. For any thread."""
        return True

    @abstractmethod
    def close(self) -> None:
        """Release weights, cache and threads. Idempotent."""
