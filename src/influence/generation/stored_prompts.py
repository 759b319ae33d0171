"""How sequences use the prompts on disk: blocks are read while others run, and written when a prompt is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from influence.dataclass import dataclass
from influence.engines.base import Blocks
from influence.generation.prompt_store import PromptStore
from influence.generation.sequence import SequenceState

# So many tokens are worth a wait for the disk.
MIN_LOADED = 64


@dataclass(frozen=True, eq=False)
class Load:
    """Blocks on their way from the disk to a sequence's session, which stands where they begin."""

    blocks: Future[Blocks]

    @property
    def is_ready(self) -> bool:
        return self.blocks.done()


class StoredPrompts:
    """A store as the loop uses it; for its thread."""

    def __init__(self, store: PromptStore, block_size: int, wake: Callable[[], None]) -> None:
        """`wake` is called from another thread when blocks have been read."""
        self._store = store
        self._block_size = block_size
        self._wake = wake

    def begin_load(self, sequence: SequenceState) -> Load | None:
        """Begin to read what the disk knows of the prompt beyond the session's tokens; None if that is not much."""
        if sequence.session is None or sequence.scores_prompt:
            return None
        names = self._store.names(sequence.prompt[:-1], sequence.salt, sequence.context)
        n_stored = self._store.n_stored(names)
        if n_stored * self._block_size - sequence.n_run < MIN_LOADED:
            return None
        first = sequence.n_run // self._block_size
        sequence.session.rewind(first * self._block_size)
        return Load(self._store.load(names[first:n_stored], self._wake))

    def end_load(self, sequence: SequenceState, load: Load, make_room: Callable[[int], None]) -> None:
        """Let the session go on by what was read. `make_room` frees so many blocks of the KV cache."""
        blocks = load.blocks.result()
        if sequence.session is not None and len(blocks):
            make_room(len(blocks))
            sequence.session.append_blocks(blocks)

    def save(self, sequence: SequenceState) -> None:
        """Begin to write those blocks of a computed prompt that are not there yet."""
        if sequence.session is None:
            return
        names = self._store.names(sequence.prompt, sequence.salt, sequence.context)
        n_stored = self._store.n_stored(names)
        if n_stored < len(names):
            missing = names[n_stored:]
            self._store.save(missing, sequence.session.read_blocks(n_stored, len(missing)))
