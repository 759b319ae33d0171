"""What restricts the tokens of a completion, as the generator sees it.

`ConstraintSource` is a grammar, compiled once; `Constraint` follows one
sequence through it. Who makes them (a JSON schema, a regular expression) is
not the generator's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Constraint(Protocol):
    """One sequence's state; only the generator's thread uses it.

    An InfluenceError that a method raises ends its request, and no other.
    """

    def allowed(self) -> npt.NDArray[np.bool_] | None:
        """(vocab_size,) which tokens may come next, None if all may. Asking twice changes nothing.

        A token that ends the text is among them exactly where the text may end.
        """

    def accept(self, token_id: int) -> None:
        """Go on by the token that was chosen; it ends no completion by itself."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing may follow: the completion ends here, with "stop"."""


class ConstraintSource(Protocol):
    """A compiled grammar that any number of sequences share, from any thread."""

    def new(self) -> Constraint:
        """A state at the grammar's beginning, for one sequence."""
