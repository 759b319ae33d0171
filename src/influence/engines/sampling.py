"""How a token is to be chosen from a row of logits, and what comes of it; `choosing.py` is how it is done.

The draw is a function of (seed, position) and the final distribution alone:
a counter-based generator, so batching, streaming and threads change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from influence.errors import InvalidParameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Below this a draw is greedy. Float32 logits of size 8 or more lie at least 9.5e-7 apart,
# 95 temperatures: the runner-up's chance is e^-95, so that only exact ties are left to decide.
GREEDY_BELOW = 1e-8
MAX_TEMPERATURE = 100.0
MAX_LOGIT_BIAS = 100.0
MAX_LOGIT_BIASES = 1024  # entries; OpenAI's clients send at most 300

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, splitmix64's increment


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What the user asked of sampling; immutable.

    Raises InvalidParameter for a value of another type or outside its range.
    """

    temperature: float = 0.7  # [0, 100]; 0 (and below 1e-8): greedy, the lowest id wins a tie
    top_k: int = 0  # >= 0; keep the k likeliest, and equals of the k-th; 0: all
    top_p: float = 1.0  # [0, 1]; keep the smallest set with at least this probability, never none
    min_p: float = 0.0  # [0, 1]; keep tokens at least this likely relative to the likeliest
    repeat_penalty: float = 1.0  # [0.01, 100]; divides positive, multiplies negative logits of seen tokens
    presence_penalty: float = 0.0  # [-100, 100]; subtracted once from tokens generated already
    frequency_penalty: float = 0.0  # [-100, 100]; subtracted for each time a token was generated
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # id >= 0 -> [-100, 100], <= 1024 entries
    seed: int = 0  # any integer; its low 64 bits count

    def __post_init__(self) -> None:
        _require_number("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        _require_number("top_p", self.top_p, 0.0, 1.0)
        _require_number("min_p", self.min_p, 0.0, 1.0)
        _require_number("repeat_penalty", self.repeat_penalty, 0.01, 100.0)
        _require_number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _require_number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        if not _is_int(self.top_k) or self.top_k < 0:
            raise InvalidParameter("top_k", self.top_k, "a whole number of at least 0 (0 keeps all tokens)")
        if not _is_int(self.seed):
            raise InvalidParameter("seed", self.seed, "a whole number")
        object.__setattr__(self, "seed", self.seed & _MASK_64)
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def counts_tokens(self) -> bool:
        """Whether the choice depends on the tokens so far, so that a Draw must carry them."""
        return (self.repeat_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose (or to score): from row `row` of the last forward, for `position`."""

    row: int
    position: int  # of the token to be chosen; the counter of the random generator
    params: SamplingParams
    prompt_ids: npt.NDArray[np.int64] | None = None  # distinct ids of the prompt, for repeat_penalty
    generated_ids: npt.NDArray[np.int64] | None = None  # distinct ids generated so far
    generated_counts: npt.NDArray[np.int64] | None = None  # how often each was
    allowed: npt.NDArray[np.bool_] | None = None  # (vocab_size,) False bans a token; None: all allowed
    n_logprobs: int = 0  # how many likeliest alternatives to report; -1: no logprobs at all
    known_id: int | None = None  # the token is this one, as of a prompt; only its logprobs are wanted

    @property
    def is_plain(self) -> bool:
        """Whether temperature, filters and chance are all that it asks for."""
        return (
            self.allowed is None
            and self.known_id is None
            and self.n_logprobs < 0
            and not self.params.logit_bias
            and not self.params.counts_tokens
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """A chosen token."""

    token_id: int
    logprob: float | None  # natural log, of the model's own distribution (before any of the above)
    top_logprobs: tuple[tuple[int, float], ...] = ()  # likeliest first; of equals the lower id first


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that is a function of (seed, position): 53 bits of a 64-bit hash.

    mix64(mix64(seed) + (position + 1) * golden), all modulo 2^64; for seed 0
    this is the sequence of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
    """
    return (_mix64(mixed_seed(seed) + (position + 1) * _GOLDEN) >> 11) * 2.0**-53


def mixed_seed(seed: int) -> int:
    """The part of `uniform` that is the same for all positions, 64 bits."""
    return _mix64(seed)


def _mix64(x: int) -> int:
    """splitmix64's finalizer, a bijection of 64-bit integers (Stafford's variant 13)."""
    x &= _MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return x ^ (x >> 31)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_number(name: str, value: object, low: float, high: float) -> None:
    # A NaN fails both comparisons, so that it is refused too.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise InvalidParameter(name, value, f"a number from {low:g} to {high:g}")


def _checked_bias(bias: Mapping[int, float]) -> dict[int, float]:
    """A copy of the mapping that the caller can't change any more."""
    if len(bias) > MAX_LOGIT_BIASES:
        raise InvalidParameter("logit_bias", f"{len(bias)} entries", f"at most {MAX_LOGIT_BIASES} entries")
    for token_id, value in bias.items():
        if not _is_int(token_id) or token_id < 0:
            raise InvalidParameter("logit_bias", token_id, "keyed by token ids")
        _require_number(f"logit_bias[{token_id}]", value, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
    return dict(bias)
