"""Whether a model that a hub lists could run here, from the list alone: no file of the model is read.

The list tells the kind of a model (an excerpt of its config.json, or a tag of
that name), and the number of parameters of each dtype. What it does not tell is
not guessed: such a model may run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from influence.dataclass import dataclass
from influence.models.registry import FAMILIES, NO_HEAD, refusal_of
from influence.weights.safetensors import DTYPE_BITS
from influence.weights.tensor import ITEM_BYTES

if TYPE_CHECKING:
    from influence.hub.records import ModelSummary

# Tags by which the Hub, or who uploaded a model, names weights that are not as they were trained.
_QUANTISED_TAGS = frozenset(
    "gptq awq bitsandbytes compressed-tensors fp8 exl2 exl3 hqq aqlm quanto torchao 2-bit 3-bit 4-bit 6-bit 8-bit".split()  # noqa: SIM905
)
# Buffers of other dtypes (masks, positions) are no more than this part of a model.
_BUFFER_SHARE = 0.01


@dataclass(frozen=True)
class Outlook:
    """What a list tells of one model."""

    model_type: str  # "" if it does not tell
    problem: str  # why the model does not run here, in a few words; "" if nothing speaks against it
    weights_bytes: int | None  # None if it does not tell

    @property
    def is_supported(self) -> bool | None:
        """None where the kind is not known."""
        if self.problem:
            return False
        return True if self.model_type else None


def outlook(summary: ModelSummary) -> Outlook:
    """The outlook on a model that a search found."""
    model_type = summary.model_type or _tagged_type(summary.tags)
    problem = next(filter(None, _problems(summary, model_type)), "")
    return Outlook(model_type, problem, _weights_bytes(summary))


def _tagged_type(tags: Iterable[str]) -> str:
    return next((tag for tag in tags if tag in FAMILIES or refusal_of(tag)), "")


def _problems(summary: ModelSummary, model_type: str) -> Iterable[str]:
    """What speaks against the model, the plainest first; "" for what does not."""
    yield "an adapter" if summary.library == "peft" else ""
    refusal = refusal_of(model_type)
    yield refusal.kind if refusal else ""
    yield f"unknown kind {model_type}" if model_type and model_type not in FAMILIES else ""
    yield "gives labels, not text" if any(name.endswith(NO_HEAD) for name in summary.architectures) else ""
    yield _quantisation(summary)
    yield "" if _may_have_safetensors(summary) else "not in safetensors"


def _quantisation(summary: ModelSummary) -> str:
    tagged = next((tag for tag in summary.tags if tag in _QUANTISED_TAGS), "")
    if summary.quantisation or tagged:
        return f"quantised ({summary.quantisation or tagged})"
    counts = summary.n_parameters_by_dtype
    foreign = {dtype: n for dtype, n in counts.items() if dtype not in ITEM_BYTES}
    if sum(foreign.values()) > _BUFFER_SHARE * sum(counts.values()):
        return f"weights in {max(foreign, key=lambda dtype: foreign[dtype])}"
    return ""


def _may_have_safetensors(summary: ModelSummary) -> bool:
    return bool(summary.n_parameters_by_dtype) or not summary.tags or "safetensors" in summary.tags


def _weights_bytes(summary: ModelSummary) -> int | None:
    counts = summary.n_parameters_by_dtype
    if not counts or any(dtype not in DTYPE_BITS for dtype in counts):
        return None
    return sum(n * DTYPE_BITS[dtype] for dtype, n in counts.items()) // 8
