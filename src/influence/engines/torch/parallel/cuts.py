"""What each of several ranks holds of one model, as sizes and views: tensor parallel, before any tensor moves.

    q, k, v          the rows of whole heads: a run of KV heads and the query heads that read them
    gate, up         the rows of a run of the intermediate size
    o, down          the columns that meet those: each rank has a term of every output
    lm_head          the rows of a run of the vocabulary
    o.bias, down.bias    rank 0's alone, so that the sum has them once
    embed, norms     whole, everywhere

Runs differ by one unit where a size can't be divided evenly. Where there are
more ranks than KV heads, neighbours hold the same KV head and share out the
query heads that read it. Columns are cut between groups of q8 and q4, so that
these are the weights that one device would have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from influence.engines.torch.matrices import GROUP_COLUMNS
from influence.engines.torch.quantize import MatrixFormat
from influence.errors import InvalidParameter
from influence.models.binding import Weights
from influence.models.spec import ModelSpec
from influence.weights.tensor import Tensor

Slots = Mapping[str, Tensor]

# Columns by which the intermediate size is cut where it has enough of them: a cache line of 16-bit weights.
_LINE_COLUMNS = 64
_MOST_RANKS = 16  # that an error message looks for
_ON_ONE_RANK = ("o.bias", "down.bias")


def runs(size: int, n_ranks: int, unit: int = 1) -> list[slice]:
    """`size` things in `n_ranks` consecutive runs as equal as whole units allow; what is over goes to the last."""
    n_units = -(-size // unit)
    edges = [min(size, unit * (n_units * rank // n_ranks)) for rank in range(n_ranks + 1)]
    return [slice(begin, end) for begin, end in pairwise(edges)]


@dataclass(frozen=True, slots=True)
class Cut:
    """One rank's part."""

    rank: int
    spec: ModelSpec  # what this rank computes: the whole, but for its own heads and intermediate size
    heads: slice
    kv_heads: slice
    columns: slice  # of the intermediate size
    vocabulary: slice  # rows of the head

    def weights(self, whole: Weights) -> Weights:
        """Views of this rank's part; copies nothing. A tied head stays tied, and whole."""
        layers = tuple(self._taken(slots) for slots in whole.layers)
        return Weights(self._taken(whole.outer), layers)

    def _taken(self, slots: Slots) -> dict[str, Tensor]:
        return {
            slot: self._part(slot, tensor)
            for slot, tensor in slots.items()
            if self.rank == 0 or slot not in _ON_ONE_RANK
        }

    def _part(self, slot: str, tensor: Tensor) -> Tensor:
        name, head_dim = slot.removesuffix(".bias"), self.spec.head_dim
        match name:
            case "q" | "k" | "v":
                return _rows(tensor, self._of_heads(name), head_dim)
            case "q_norm" | "k_norm":
                return _norm(tensor, self._of_heads(name[0]), head_dim)
            case "gate" | "up":
                return _rows(tensor, self.columns)
            case "lm_head":
                return _rows(tensor, self.vocabulary)
            case "o" | "down" if name == slot:
                columns = _scaled(self.heads, head_dim) if name == "o" else self.columns
                return tensor.columns(columns.start, columns.stop - columns.start)
        return tensor

    def _of_heads(self, name: str) -> slice:
        return self.heads if name == "q" else self.kv_heads


def cut(spec: ModelSpec, rank: int, n_ranks: int, form: MatrixFormat = "stored") -> Cut:
    """The part of `rank`; raises InvalidParameter for a number of ranks that the model can't be shared out to."""
    problem = _problem(spec, n_ranks, form)
    if problem:
        possible = [str(n) for n in range(2, _MOST_RANKS + 1) if not _problem(spec, n, form)]
        expected = f"{', '.join(possible)} or 1" if possible else "1"
        raise InvalidParameter("tensor_parallel", n_ranks, f"{expected} for this model: {problem}")
    heads, kv_heads = _heads(spec, rank, n_ranks, form)
    columns = runs(spec.intermediate_size, n_ranks, _column_unit(spec, n_ranks, form))[rank]
    own = replace(
        spec,
        n_heads=heads.stop - heads.start,
        n_kv_heads=kv_heads.stop - kv_heads.start,
        intermediate_size=columns.stop - columns.start,
    )
    return Cut(rank, own, heads, kv_heads, columns, runs(spec.vocab_size, n_ranks)[rank])


def _heads(spec: ModelSpec, rank: int, n_ranks: int, form: MatrixFormat) -> tuple[slice, slice]:
    """The query heads of a rank, and the KV heads that they read."""
    if n_ranks > spec.n_kv_heads:
        kv_head = rank * spec.n_kv_heads // n_ranks
        return runs(spec.n_heads, n_ranks)[rank], slice(kv_head, kv_head + 1)
    kv_heads = runs(spec.n_kv_heads, n_ranks, _kv_head_unit(spec, form))[rank]
    return _scaled(kv_heads, spec.n_heads // spec.n_kv_heads), kv_heads


def _problem(spec: ModelSpec, n_ranks: int, form: MatrixFormat) -> str:
    """Why so many ranks can't share the model, or nothing."""
    n_kv_heads, group, intermediate = spec.n_kv_heads, _group_columns(form), spec.intermediate_size
    if n_ranks > n_kv_heads:
        if n_ranks % n_kv_heads or spec.n_heads % n_ranks:
            return f"it has {spec.n_heads} heads in {n_kv_heads} groups of the same keys and values"
        if spec.n_heads // n_ranks * spec.head_dim % group:
            return f"{form} takes {group} columns together, and a head has {spec.head_dim}"
    elif -(-n_kv_heads // _kv_head_unit(spec, form)) < n_ranks:
        return f"{form} takes {group} columns together, and a head has {spec.head_dim}"
    if -(-intermediate // _column_unit(spec, n_ranks, form)) < n_ranks:
        return f"its intermediate size is {intermediate}" + (
            f", and {form} takes {group} together" * (group > 1)
        )
    return f"it has {spec.vocab_size} tokens" if spec.vocab_size < n_ranks else ""


def _group_columns(form: MatrixFormat) -> int:
    """Columns that no cut may part, because they have a scale in common."""
    return GROUP_COLUMNS[form] if form in ("q8", "q4") else 1


def _kv_head_unit(spec: ModelSpec, form: MatrixFormat) -> int:
    """KV heads whose query heads make whole groups of columns."""
    group = _group_columns(form)
    return group // math.gcd(group, spec.n_heads // spec.n_kv_heads * spec.head_dim)


def _column_unit(spec: ModelSpec, n_ranks: int, form: MatrixFormat) -> int:
    return _LINE_COLUMNS if spec.intermediate_size >= _LINE_COLUMNS * n_ranks else _group_columns(form)


def _scaled(run: slice, by: int) -> slice:
    return slice(run.start * by, run.stop * by)


def _rows(tensor: Tensor, run: slice, rows_each: int = 1) -> Tensor:
    """A run of rows, or of groups of them, of a matrix or vector; a matrix in groups has a group for each head."""
    rows = run if len(tensor.shape) == 3 else _scaled(run, rows_each)
    return tensor.rows(rows.start, rows.stop - rows.start)


def _norm(tensor: Tensor, heads: slice, head_dim: int) -> Tensor:
    """A norm of the heads: one for all of them, one for each, or over all together."""
    return tensor if tensor.shape == (head_dim,) else _rows(tensor, heads, _per_head(tensor, head_dim))


def _per_head(norm: Tensor, head_dim: int) -> int:
    """Rows of a norm that a head has: one of many numbers, or many of one."""
    return 1 if len(norm.shape) == 2 else head_dim
