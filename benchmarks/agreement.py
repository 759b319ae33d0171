"""Whether two engines compute the same model; a race against another model would mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from cases import OURS, Timed

# Far enough for a wrong rotary scaling or mask to show.
N_TOKENS = 256
_N_ROWS = 16

# Root mean square of the logits' differences over the logits' standard deviation; 1.4 for unrelated
# models. Engines round activations to the weights' type at different places: 8, 11 or 24 bits of
# mantissa, in each of some 30 layers; and a peer may keep a float16 cache for float32 weights.
# Weights of 8 bits, one scale for each channel, are off by a hundredth of themselves, activations as much;
# of 4 bits in groups of 128, by a tenth. 22 layers of random weights make 0.06 to 0.08 and 0.55 of it, as
# measured against stored weights, and another engine's own rounding comes on top of that.
_TOLERANCE = {"BF16": 0.08, "F16": 0.01, "F32": 0.002, "q8": 0.15, "int8": 0.15, "q4": 0.9, "int4": 0.9}
_TOLERANCE["bfloat16"] = _TOLERANCE["BF16"]

Logits = npt.NDArray[np.float32]


class Disagreement(Exception):
    """Two engines give different logits for the same weights and tokens."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a peer's logits are from ours over a few positions."""

    peer: str
    difference: float  # root mean square, in standard deviations of the logits
    n_equal: int  # positions where both choose the same token
    n_positions: int
    tolerance: float

    def __str__(self) -> str:
        return (
            f"{self.peer}: logits differ by {self.difference:.2g} of their standard deviation "
            f"({self.tolerance:g} allowed); the same greedy token at {self.n_equal} of {self.n_positions} positions"
        )


def check_agreement(
    runners: Mapping[str, Timed], vocab_size: int, roundings: Sequence[str]
) -> list[Agreement]:
    """Ours against every peer, on the same random tokens; the coarsest of the roundings counts. Raises Disagreement."""
    tolerance = max(_TOLERANCE[rounding] for rounding in roundings)
    random = Random(0)
    token_ids = [random.randrange(vocab_size) for _ in range(N_TOKENS)]
    logits = {
        name: np.frombuffer(runner.logits(token_ids, _N_ROWS), np.float32).reshape(_N_ROWS, -1)
        for name, runner in runners.items()
    }
    peers = [name for name in runners if name != OURS]
    return [_compared(peer, logits[OURS], logits[peer], tolerance) for peer in peers]


def _compared(peer: str, ours: Logits, theirs: Logits, tolerance: float) -> Agreement:
    if ours.shape != theirs.shape:
        raise Disagreement(f"{peer} gives {theirs.shape[1]} logits, we give {ours.shape[1]}")
    difference = float(np.sqrt(np.square(ours - theirs).mean()) / ours.std())
    n_equal = int((ours.argmax(1) == theirs.argmax(1)).sum())
    found = Agreement(peer, difference, n_equal, len(ours), tolerance)
    if not difference <= tolerance:
        raise Disagreement(str(found))
    return found
