"""What peers are asked to run, and how far from ours their numbers may be."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agreement import Disagreement, check_agreement
from cases import OURS
from peer_process import PeerFailed
from peers import peer_form, start_peer

ANY_MODEL: Any = None


def options(weights: str, peer_weights: str | None = None) -> Namespace:
    return Namespace(weights=weights, peer_weights=peer_weights, threads=1, cache=Path(), peer_python=Path())


@pytest.mark.parametrize(
    ("weights", "form"), [("stored", "bfloat16"), ("packed", "bfloat16"), ("q8", "int8"), ("q4", "int4")]
)
def test_a_peer_with_formats_of_its_own_holds_as_many_bits_as_we(weights: str, form: str) -> None:
    assert peer_form(options(weights)) == form
    assert peer_form(options(weights, "int8")) == "int8"


def test_ctranslate2_has_no_weights_of_four_bits() -> None:
    with pytest.raises(PeerFailed, match="--peer-weights int8"):
        start_peer("ctranslate2", options("q4"), ANY_MODEL, 64)


class Logits:
    """An engine whose logits are ours and so much noise."""

    description = "noisy"

    def __init__(self, noise: float) -> None:
        self._noise = noise

    def prefill_s(self, n_tokens: int) -> float:
        return 1.0

    def decode_s(self, n_tokens: int, depth: int, n_streams: int) -> float:
        return 1.0

    def logits(self, token_ids: Sequence[int], n_rows: int) -> bytes:
        ours, noise = np.random.default_rng(0).standard_normal((2, n_rows, 500))
        return (ours + self._noise * noise).astype(np.float32).tobytes()


def test_the_coarsest_rounding_says_how_far_logits_may_differ() -> None:
    runners = {OURS: Logits(0.0), "peer": Logits(0.1)}
    [found] = check_agreement(runners, 500, ["BF16", "q8"])
    assert found.difference == pytest.approx(0.1, rel=0.05)
    with pytest.raises(Disagreement):
        check_agreement(runners, 500, ["BF16"])


def test_an_unrelated_model_disagrees_whatever_is_rounded() -> None:
    with pytest.raises(Disagreement):
        check_agreement({OURS: Logits(0.0), "peer": Logits(1.0)}, 500, ["BF16", "q4", "int4"])
