"""On files with faults anywhere, our verdict and what we read are those of the safetensors package."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from influence.errors import InvalidCheckpoint
from influence.weights.safetensors import parse_header
from support.safetensors_files import Mutant, with_length

# A million seeds were compared when this was written; these many take a few seconds.
N_SEEDS = 30_000
N_SEARCHED = 500

DIGITS = st.integers(0, 10**25).map(str)

Verdict = dict[str, tuple[str, tuple[int, ...], bytes]] | None


def their_verdict(file: bytes) -> Verdict:
    try:
        views = safetensors.deserialize(file)
    except safetensors.SafetensorError:
        return None
    return {name: (view["dtype"], tuple(view["shape"]), bytes(view["data"])) for name, view in views}


def our_verdict(file: bytes) -> Verdict:
    try:
        header = parse_header(file, len(file), Path("model.safetensors"))
    except InvalidCheckpoint:
        return None
    data = file[header.data_start :]
    return {i.name: (i.dtype, i.shape, data[i.begin : i.end]) for i in header.tensors.values()}


@pytest.mark.parametrize("part", range(10))
def test_mutants_get_the_verdict_of_the_package(part: int) -> None:
    accepted = 0
    for seed in range(part, N_SEEDS, 10):
        file = Mutant(Random(seed)).bytes()
        theirs = their_verdict(file)
        assert our_verdict(file) == theirs, f"seed {seed}: {file!r}"
        accepted += theirs is not None
    assert 0.2 < accepted * 10 / N_SEEDS < 0.8  # both verdicts are well tried


@settings(max_examples=N_SEARCHED, derandomize=True, deadline=None)
@given(st.randoms(use_true_random=False))
def test_mutants_that_hypothesis_builds_get_the_verdict_of_the_package(random: Random) -> None:
    file = Mutant(random).bytes()
    assert our_verdict(file) == their_verdict(file)


@settings(max_examples=N_SEARCHED, derandomize=True, deadline=None)
@given(
    st.builds("{}{}.{}e{}".format, st.sampled_from(["", "-"]), DIGITS, DIGITS, st.integers(-700, 700))
    | st.floats(1e307, allow_infinity=False).map(repr)
    | st.integers(10**307, 10**310).map(str)
)
def test_numbers_are_in_range_where_the_package_says_so(number: str) -> None:
    tensor = '{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":%s}'
    file = with_length('{"w":' + tensor % number + "}")
    assert our_verdict(file) == their_verdict(file)


@settings(max_examples=N_SEARCHED, derandomize=True, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=4))
def test_noise_gets_the_verdict_of_the_package(header: bytes, data: bytes) -> None:
    for file in (with_length(header, data), with_length(b"{" + header + b"}", data), header):
        assert our_verdict(file) == their_verdict(file)
