"""Grammars compiled once for all requests that ask for the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property

from influence.generation.structured import (
    CompiledConstraint,
    ConstraintSpec,
    ConstraintVocabulary,
    compile_constraint,
)

# A compiled grammar has some 100 kB, at most 100 MB by the limits of its compiler.
MAX_KEPT = 32
MAX_KEPT_CHARACTERS = 2 << 20


class Grammars:
    """The grammars used last; for any thread."""

    def __init__(self, new_vocabulary: Callable[[], ConstraintVocabulary]) -> None:
        """`new_vocabulary` is called when the first grammar is asked for: it takes a second for a large model."""
        self._new_vocabulary = new_vocabulary
        self._lock = threading.Lock()  # guards the two below
        self._kept: OrderedDict[ConstraintSpec, CompiledConstraint] = OrderedDict()
        self._n_characters = 0

    def compiled(self, spec: ConstraintSpec) -> CompiledConstraint:
        """The grammar of a spec. Raises InvalidParameter for one that can't be followed."""
        with self._lock:
            known = self._kept.get(spec)
            if known is not None:
                self._kept.move_to_end(spec)
                return known
            vocabulary = self._vocabulary
        made = compile_constraint(spec, vocabulary)
        with self._lock:
            self._keep(spec, made)
        return made

    @cached_property
    def _vocabulary(self) -> ConstraintVocabulary:
        return self._new_vocabulary()

    def _keep(self, spec: ConstraintSpec, made: CompiledConstraint) -> None:
        if spec not in self._kept:
            self._n_characters += len(spec.text)
        self._kept[spec] = made
        while len(self._kept) > MAX_KEPT or (
            self._n_characters > MAX_KEPT_CHARACTERS and len(self._kept) > 1
        ):
            oldest, _ = self._kept.popitem(last=False)
            self._n_characters -= len(oldest.text)
