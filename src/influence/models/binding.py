"""Checkpoint tensors put into the engine's slots: each taken exactly once, of the right shape.

A missing tensor, one left over, or one of another shape is an
InvalidCheckpoint that names it. No weight is copied, except norms and biases
that lie in pieces (a few kB).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from influence.dataclass import dataclass
from influence.errors import InvalidCheckpoint
from influence.models.layout import Layout, Part, PerHead, Place
from influence.models.spec import ModelSpec
from influence.weights.checkpoint import Checkpoint
from influence.weights.tensor import Tensor

Shape = tuple[int, ...]

# Leftover names that an error message lists.
_MAX_LISTED = 5


@dataclass(frozen=True)
class Weights:
    """All tensors of a model by slot; a slot that is absent does not exist in this model.

    outer: embed, final_norm, lm_head (absent: tied to embed); layers: attn_norm,
    q, k, v, o, q_norm, k_norm, attn_post_norm, ffn_norm, gate, up, down,
    ffn_post_norm; each also with ".bias".
    """

    outer: Mapping[str, Tensor]
    layers: tuple[Mapping[str, Tensor], ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights; a tied head is counted once."""
        groups = chain([self.outer], self.layers)
        return sum(tensor.size_bytes for group in groups for tensor in group.values())


def slot_shape(spec: ModelSpec, slot: str) -> Shape:
    """The shape that a slot's weight must have: (rows, columns), or (size,) for a norm."""
    hidden, intermediate = spec.hidden_size, spec.intermediate_size
    shapes: dict[str, Shape] = {
        "embed": (spec.vocab_size, hidden),
        "lm_head": (spec.vocab_size, hidden),
        "q": (spec.q_dim, hidden),
        "k": (spec.kv_dim, hidden),
        "v": (spec.kv_dim, hidden),
        "o": (hidden, spec.q_dim),
        "gate": (intermediate, hidden),
        "up": (intermediate, hidden),
        "down": (hidden, intermediate),
    }
    if slot in ("q_norm", "k_norm"):
        full = spec.q_dim if slot == "q_norm" else spec.kv_dim
        return (full,) if spec.qk_norm == "full" else (spec.head_dim,)
    return shapes.get(slot, (hidden,))


def tensor_shapes(spec: ModelSpec, layout: Layout) -> dict[str, Shape]:
    """Every tensor that a checkpoint of this kind must have, sorted by name, and its shape."""
    shapes: dict[str, Shape] = {}
    for slot, module in layout.outer.items():
        shapes |= _module_shapes(spec, layout, slot, module, layout.base + module)
    head = _module_shapes(spec, layout, "lm_head", layout.head[0], layout.head[0])
    shapes |= {name: shape for name, shape in head.items() if name.endswith(".bias") or not layout.tied}
    for layer in range(spec.n_layers):
        prefix = f"{layout.base}{layout.layers}.{layer}."
        for slot, place in layout.layer.items():
            module = place if isinstance(place, str) else place.module
            shapes |= _module_shapes(spec, layout, slot, place, prefix + module)
    return dict(sorted(shapes.items()))


def _module_shapes(spec: ModelSpec, layout: Layout, slot: str, place: Place, module: str) -> dict[str, Shape]:
    """The tensors of one slot, with all others that are stacked with it."""
    if isinstance(place, PerHead):
        return _per_head_shapes(spec, slot, module)
    shape = slot_shape(spec, slot)
    if isinstance(place, Part):
        shape = (sum(slot_shape(spec, part)[0] for part in place.slots), *shape[1:])
    bias = {f"{module}.bias": shape[:1]} if slot in layout.biases else {}
    return {f"{module}.weight": shape} | bias


def _per_head_shapes(spec: ModelSpec, slot: str, module: str) -> dict[str, Shape]:
    heads = spec.n_heads if slot == "q_norm" else spec.n_kv_heads
    if "{}" not in module:
        return {f"{module}.weight": (heads, spec.head_dim)}
    return {f"{module.format(head)}.weight": (spec.head_dim,) for head in range(heads)}


def bind(spec: ModelSpec, layout: Layout, checkpoint: Checkpoint) -> Weights:
    """Take every tensor of the checkpoint into its slot; raises InvalidCheckpoint."""
    binder = _Binder(spec, layout, checkpoint)
    outer = binder.bind_outer()
    layers = tuple(binder.bind_layer(layer) for layer in range(spec.n_layers))
    binder.refuse_leftovers()
    return Weights(outer, layers)


class _Binder:
    """One pass over a checkpoint; remembers which names were taken."""

    def __init__(self, spec: ModelSpec, layout: Layout, checkpoint: Checkpoint) -> None:
        self._spec = spec
        self._layout = layout
        self._checkpoint = checkpoint
        self._taken: set[str] = set()
        has_base = any(name.startswith(layout.base) for name in checkpoint.infos)
        self._base = layout.base if has_base else ""

    def bind_outer(self) -> dict[str, Tensor]:
        slots: dict[str, Tensor] = {}
        for slot, module in self._layout.outer.items():
            slots |= self._bind(slot, module, self._base + module)
        return slots | self._bind_head()

    def _bind_head(self) -> dict[str, Tensor]:
        """The head; if it may be tied, only what the checkpoint has of it."""
        names = self._layout.head
        module = next((name for name in names if f"{name}.weight" in self._checkpoint.infos), names[0])
        if self._layout.tied and f"{module}.weight" not in self._checkpoint.infos:
            return self._bias("lm_head", module)
        return self._bind("lm_head", module, module)

    def bind_layer(self, layer: int) -> dict[str, Tensor]:
        prefix = f"{self._base}{self._layout.layers}.{layer}."
        slots: dict[str, Tensor] = {}
        for slot, place in self._layout.layer.items():
            module = place if isinstance(place, str) else place.module
            slots |= self._bind(slot, place, prefix + module)
        return slots

    def refuse_leftovers(self) -> None:
        """Raise InvalidCheckpoint if a tensor is in no slot; it would change what the model computes."""
        leftovers = sorted(
            name
            for name in self._checkpoint.infos.keys() - self._taken
            if not name.endswith(self._layout.ignored)
        )
        if leftovers:
            more = f" and {len(leftovers) - _MAX_LISTED} more" if len(leftovers) > _MAX_LISTED else ""
            raise InvalidCheckpoint(
                self._checkpoint.folder,
                f"{len(leftovers)} tensors have no place in this model: "
                f"{', '.join(leftovers[:_MAX_LISTED])}{more}",
                tensor=leftovers[0],
                hint="config.json does not belong to these weights: download the model again",
            )

    def _bind(self, slot: str, place: Place, module: str) -> dict[str, Tensor]:
        """The slot's weight, and its bias if there is one."""
        if isinstance(place, Part):
            return self._bind_part(slot, place, module)
        if isinstance(place, PerHead):
            return {slot: self._per_head(slot, module)}
        weight = self._take(f"{module}.weight", slot_shape(self._spec, slot))
        return {slot: weight} | self._bias(slot, module)

    def _bias(self, slot: str, module: str) -> dict[str, Tensor]:
        name = f"{module}.bias"
        if slot not in self._layout.biases and name not in self._checkpoint.infos:
            return {}
        return {f"{slot}.bias": self._take(name, slot_shape(self._spec, slot)[:1])}

    def _bind_part(self, slot: str, part: Part, module: str) -> dict[str, Tensor]:
        rows = sum(slot_shape(self._spec, other)[0] for other in part.slots)
        weight = self._take(f"{module}.weight", (rows, *slot_shape(self._spec, slot)[1:]))
        bound = {slot: self._cut(weight, slot, part)}
        if slot in self._layout.biases or f"{module}.bias" in self._checkpoint.infos:
            bias = self._cut(self._take(f"{module}.bias", (rows,)), slot, part)
            bound[f"{slot}.bias"] = bias.flat()  # a vector must be contiguous
        return bound

    def _cut(self, tensor: Tensor, slot: str, part: Part) -> Tensor:
        """The rows of one slot, without a copy."""
        index = part.slots.index(slot)
        if part.by_head:
            cut = tensor.part(index, len(part.slots), self._spec.head_dim)
        else:
            first = sum(slot_shape(self._spec, other)[0] for other in part.slots[:index])
            cut = tensor.rows(first, slot_shape(self._spec, slot)[0])
        return replace(cut, name=f"{tensor.name}[{slot}]")

    def _per_head(self, slot: str, module: str) -> Tensor:
        """A norm weight (heads, head_dim); stacked, if it lies in one tensor a head."""
        shapes = _per_head_shapes(self._spec, slot, module)
        tensors = [self._take(name, shape) for name, shape in shapes.items()]
        if len(tensors) == 1 and len(tensors[0].shape) == 2:
            return tensors[0]
        if len({tensor.dtype for tensor in tensors}) > 1:
            name = tensors[0].name
            raise InvalidCheckpoint(
                self._checkpoint.file_of(name), "the heads of one norm differ in dtype", tensor=name
            )
        data = b"".join(tensor.data for tensor in tensors)
        return Tensor.whole(module, tensors[0].dtype, (len(tensors), *tensors[0].shape), data)

    def _take(self, name: str, shape: Shape) -> Tensor:
        """The tensor of that name, checked against the shape that the spec wants."""
        info = self._checkpoint.infos.get(name)
        if info is None:
            raise InvalidCheckpoint(
                self._checkpoint.folder,
                "is missing",
                tensor=name,
                hint="a file of the model is missing or belongs to another: download the model again",
            )
        if tuple(info.shape) != shape:
            raise InvalidCheckpoint(
                self._checkpoint.file_of(name),
                f"has shape {_show(info.shape)}, but config.json makes it {_show(shape)}",
                tensor=name,
            )
        self._taken.add(name)
        return self._checkpoint.tensor(name)


def _show(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"
