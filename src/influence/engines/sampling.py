"""How a token is chosen from a row of logits: parameters and pure functions.

This is the definition; an engine that samples elsewhere (on a GPU) must choose
the same token. The order is that of transformers' generate:

    logit bias and mask -> penalties -> temperature -> top-k -> top-p -> min-p -> draw

The draw is a function of (seed, position) and the final distribution alone:
a counter-based generator, so batching, streaming and threads change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What the user asked of sampling; validated, immutable."""

    temperature: float = 0.7  # 0: greedy, the lowest id wins a tie
    top_k: int = 0  # keep the k likeliest; 0: all
    top_p: float = 1.0  # keep the smallest set with at least this probability
    min_p: float = 0.0  # keep tokens at least this likely relative to the likeliest
    repeat_penalty: float = 1.0  # divides positive, multiplies negative logits of seen tokens
    presence_penalty: float = 0.0  # subtracted once from tokens generated already
    frequency_penalty: float = 0.0  # subtracted for each time a token was generated
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to logits by id
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Draw:
    """One token to choose: from row `row` of the last forward, for `position`."""

    row: int
    position: int  # of the token to be chosen; the counter of the random generator
    params: SamplingParams
    prompt_ids: npt.NDArray[np.int64] | None = None  # distinct ids of the prompt, for repeat_penalty
    generated_ids: npt.NDArray[np.int64] | None = None  # distinct ids generated so far
    generated_counts: npt.NDArray[np.int64] | None = None  # how often each was
    allowed: npt.NDArray[np.bool_] | None = None  # (vocab_size,) False bans a token; None: all allowed
    n_logprobs: int = 0  # how many likeliest alternatives to report; -1: no logprobs at all


@dataclass(frozen=True, slots=True)
class Sample:
    """A chosen token."""

    token_id: int
    logprob: float | None  # natural log, of the model's own distribution (before any of the above)
    top_logprobs: tuple[tuple[int, float], ...] = ()  # likeliest first
