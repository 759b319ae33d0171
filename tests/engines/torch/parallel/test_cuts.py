"""What the ranks hold: together all of the model, each thing once, and nothing copied."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs torch: pip install 'influence[torch]'")

from influence.engines.torch.parallel.cuts import Cut, cut, runs
from influence.errors import InvalidParameter
from influence.models.binding import Weights, slot_shape
from influence.models.spec import ModelSpec
from support.random_specs import Extras, extras, random_weights, small_spec, specs

Arrays = list[np.ndarray]


def parts(spec: ModelSpec, weights: Weights, n_ranks: int) -> list[tuple[Cut, Weights]]:
    cuts = [cut(spec, rank, n_ranks) for rank in range(n_ranks)]
    return [(one, one.weights(weights)) for one in cuts]


def held(cut_weights: list[tuple[Cut, Weights]], slot: str) -> Arrays:
    """What each rank has of a slot of the first layer, as rows."""
    arrays = [weights.layers[0][slot].array for _, weights in cut_weights]
    return [array.reshape(-1, *array.shape[-1:]) if array.ndim == 3 else array for array in arrays]


def test_things_are_cut_into_runs_that_differ_by_a_unit_at_most() -> None:
    assert runs(8, 2) == [slice(0, 4), slice(4, 8)]
    assert runs(7, 3) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert runs(320, 2, 64) == [slice(0, 128), slice(128, 320)]
    assert runs(130, 2, 64) == [slice(0, 64), slice(64, 130)]


def test_two_ranks_have_half_of_the_heads_and_of_the_intermediate_size() -> None:
    first, second = cut(small_spec(), 0, 2), cut(small_spec(), 1, 2)
    for one in (first, second):
        assert (one.spec.n_heads, one.spec.n_kv_heads, one.spec.intermediate_size) == (2, 1, 20)
        assert (one.spec.hidden_size, one.spec.vocab_size) == (24, 61)
    assert (second.heads, second.kv_heads, second.columns) == (slice(2, 4), slice(1, 2), slice(20, 40))
    assert (first.vocabulary, second.vocabulary) == (slice(0, 30), slice(30, 61))


def test_ranks_beyond_the_kv_heads_share_one_and_part_its_query_heads() -> None:
    spec = small_spec(n_heads=8, n_kv_heads=2)
    cuts = [cut(spec, rank, 4) for rank in range(4)]
    assert [one.heads for one in cuts] == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert [one.kv_heads.start for one in cuts] == [0, 0, 1, 1]
    assert {(one.spec.n_heads, one.spec.n_kv_heads) for one in cuts} == {(2, 1)}


@given(spec=specs(), tensors=extras(), n_ranks=st.integers(2, 4), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_parts_are_the_whole_and_fit_their_own_spec(
    spec: ModelSpec, tensors: Extras, n_ranks: int, seed: int
) -> None:
    try:
        cut(spec, 0, n_ranks)
    except InvalidParameter:
        assume(False)
    weights = random_weights(spec, tensors, seed)
    ranks = parts(spec, weights, n_ranks)
    for one, own in ranks:
        for slot in ("q", "k", "v", "o", "up", "down"):
            array = own.layers[0][slot].array
            assert array.reshape(-1, array.shape[-1]).shape == slot_shape(one.spec, slot)
    for slot, axis in (("q", 0), ("up", 0), ("up.bias", 0), ("o", 1), ("down", 1)):
        if slot in weights.layers[0]:
            whole = held([(ranks[0][0], weights)], slot)[0]
            np.testing.assert_array_equal(np.concatenate(held(ranks, slot), axis=axis), whole)
    if n_ranks <= spec.n_kv_heads:
        np.testing.assert_array_equal(
            np.concatenate(held(ranks, "k")), held([(ranks[0][0], weights)], "k")[0]
        )
    if "lm_head" in weights.outer:
        heads = [own.outer["lm_head"].array for _, own in ranks]
        np.testing.assert_array_equal(np.concatenate(heads), weights.outer["lm_head"].array)


def test_what_is_added_to_a_sum_is_the_first_rank_s_alone() -> None:
    spec = small_spec()
    [_, first], [_, second] = parts(spec, random_weights(spec, Extras(biases=True)), 2)
    added = {"o.bias", "down.bias"}
    assert added <= first.layers[0].keys() and not added & second.layers[0].keys()
    assert {"q.bias", "up.bias"} <= second.layers[0].keys() and "lm_head.bias" in second.outer


def test_norms_of_heads_go_with_their_heads() -> None:
    for kind, shapes in (
        ("head", {"q_norm": (8,), "k_norm": (1, 8)}),
        ("full", {"q_norm": (16,), "k_norm": (8,)}),
    ):
        spec = small_spec(qk_norm=kind)
        weights = random_weights(spec)
        for _, own in parts(spec, weights, 2):
            assert {slot: own.layers[0][slot].array.shape for slot in shapes} == shapes
    np.testing.assert_array_equal(own.layers[0]["k_norm"].array, weights.layers[0]["k_norm"].array[8:])


def test_a_part_is_a_view_of_the_whole() -> None:
    spec = small_spec(n_kv_heads=4)
    weights = random_weights(spec, Extras(grouped_qkv=True))
    for _, own in parts(spec, weights, 2):
        for slot, tensor in own.layers[1].items():
            assert np.shares_memory(tensor.array, weights.layers[1][slot].array)


def test_groups_of_columns_with_one_scale_are_never_parted() -> None:
    spec = small_spec(intermediate_size=200, n_heads=8, n_kv_heads=8, head_dim=16)
    assert [cut(spec, rank, 2, "q8").columns for rank in (0, 1)] == [slice(0, 128), slice(128, 200)]
    assert [cut(spec, rank, 2, "q8").heads for rank in (0, 1)] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(InvalidParameter, match="must be 2 or 1 for this model: q8 takes 64 columns together"):
        cut(spec, 0, 4, "q8")
    assert cut(spec, 3, 4, "q4").heads == slice(6, 8)


@pytest.mark.parametrize(
    ("changes", "n_ranks", "message"),
    [
        (
            {"n_heads": 6, "n_kv_heads": 2},
            4,
            "2, 6 or 1 for this model: it has 6 heads in 2 groups of the same",
        ),
        ({"n_heads": 1, "n_kv_heads": 1}, 2, "1 for this model: it has 1 heads"),
        ({"intermediate_size": 1}, 2, "its intermediate size is 1"),
        ({"vocab_size": 1}, 2, "it has 1 tokens"),
        ({}, 40, "2, 4 or 1 for this model"),
    ],
)
def test_a_number_that_can_not_be_is_refused_with_those_that_can(
    changes: dict[str, int], n_ranks: int, message: str
) -> None:
    with pytest.raises(InvalidParameter, match=message):
        cut(small_spec(**changes), 0, n_ranks)
