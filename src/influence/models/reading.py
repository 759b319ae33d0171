"""What the config.json files of many families have in common: sizes, windows, activation.

Each reader takes a Config and gives a piece of a ModelSpec. Defaults that
differ between families are arguments; the values stand in `families/`, from
transformers' configuration_<type>.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from influence.dataclass import dataclass
from influence.models.config import Config
from influence.models.spec import Activation, ModelSpec, NormKind, Rope, RopeScaling

MAX_LAYERS = 1024
MAX_HEADS = 4096
MAX_WIDTH = 1 << 20  # hidden_size, head_dim
MAX_ROWS = 1 << 24  # vocab_size, intermediate_size
MAX_POSITIONS = 1 << 28

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
}


def read_activation(config: Config, default: str, *, key: str = "hidden_act") -> Activation:
    name = config.text(key, default)
    if name not in _ACTIVATIONS:
        raise config.unsupported(key, name, ", ".join(_ACTIVATIONS))
    return _ACTIVATIONS[name]


@dataclass(frozen=True)
class Sizes:
    """The shape of a decoder. Every one is bounded and the heads divide before anything is made of it."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    max_context: int

    @classmethod
    def read(
        cls, config: Config, *, max_context: int, n_kv_heads: int | None = None, head_dim: int | None = None
    ) -> Sizes:
        """The sizes in their usual spelling.

        `max_context` and `n_kv_heads` are what an absent key means (None: n_heads),
        `head_dim` too (None: hidden_size / n_heads, which must then divide).
        """
        hidden_size = config.integer("hidden_size", maximum=MAX_WIDTH)
        n_heads = config.integer("num_attention_heads", maximum=MAX_HEADS)
        return cls(
            vocab_size=config.integer("vocab_size", maximum=MAX_ROWS),
            hidden_size=hidden_size,
            intermediate_size=config.integer("intermediate_size", maximum=MAX_ROWS),
            n_layers=config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            n_heads=n_heads,
            n_kv_heads=_read_n_kv_heads(config, n_heads, n_kv_heads),
            head_dim=_read_head_dim(config, hidden_size, n_heads, head_dim),
            max_context=config.integer("max_position_embeddings", max_context, maximum=MAX_POSITIONS),
        )

    def spec(
        self,
        *,
        norm: NormKind,
        norm_eps: float,
        activation: Activation,
        gated_mlp: bool,
        rope: Rope,
        windows: Sequence[int | None] | None = None,
    ) -> ModelSpec:
        """A ModelSpec of this shape with one rope on all layers; all else as `dataclasses.replace` may set it."""
        return ModelSpec(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            head_dim=self.head_dim,
            max_context=_stretched_context(self.max_context, rope.scaling),
            norm=norm,
            norm_eps=norm_eps,
            activation=activation,
            gated_mlp=gated_mlp,
            attention_scale=self.head_dim**-0.5,
            ropes=(rope,),
            layer_rope=(0,) * self.n_layers,
            layer_window=tuple(windows) if windows is not None else (None,) * self.n_layers,
        )


def read_eps(config: Config, key: str, default: float) -> float:
    """The epsilon of the norms."""
    return config.number(key, default, minimum=0, maximum=1)


def _read_n_kv_heads(config: Config, n_heads: int, default: int | None) -> int:
    absent = n_heads if default is None or "num_key_value_heads" in config else default
    n_kv_heads = config.optional_integer("num_key_value_heads", absent, maximum=n_heads) or n_heads
    if n_heads % n_kv_heads:
        raise config.invalid(
            "num_key_value_heads", f"is {n_kv_heads}, which does not divide num_attention_heads, {n_heads}"
        )
    return n_kv_heads


def _read_head_dim(config: Config, hidden_size: int, n_heads: int, default: int | None) -> int:
    head_dim = config.optional_integer("head_dim", default, maximum=MAX_WIDTH)
    if head_dim is None and hidden_size % n_heads:
        raise config.invalid(
            "num_attention_heads", f"is {n_heads}, which does not divide hidden_size, {hidden_size}"
        )
    return head_dim or hidden_size // n_heads


def _stretched_context(max_context: int, scaling: RopeScaling) -> int:
    """Positions that the stretched rope reaches.

    Only these kinds may state the unstretched length in max_position_embeddings:
    dynamic is defined by it, and YaRN is often switched on by hand.
    """
    if scaling.kind not in ("dynamic", "yarn"):
        return max_context
    return min(max(max_context, int(scaling.original_max_context * scaling.factor)), MAX_POSITIONS)


def read_layer_types(config: Config, n_layers: int, default: Sequence[str]) -> Sequence[str]:
    """One of "full_attention" and "sliding_attention" per layer; anything else is refused by its name."""
    if config.values.get("layer_types") is None:
        return default
    layer_types = config.sequence("layer_types")
    for layer_type in layer_types:
        if layer_type not in ("full_attention", "sliding_attention"):
            raise config.unsupported("layer_types", layer_type, "full_attention or sliding_attention")
    if len(layer_types) != n_layers:
        raise config.invalid("layer_types", f"has {len(layer_types)} entries for {n_layers} layers")
    return layer_types


def read_windows(
    config: Config, layer_types: Sequence[str], default: int | None = None
) -> tuple[int | None, ...]:
    """The window of each sliding layer, None elsewhere."""
    if "sliding_attention" not in layer_types:
        return (None,) * len(layer_types)
    window = config.optional_integer("sliding_window", default)
    if window is None:
        raise config.invalid("sliding_window", "is missing, but layer_types has sliding_attention")
    return tuple(window if kind == "sliding_attention" else None for kind in layer_types)


def read_late_windows(config: Config, n_layers: int) -> tuple[int | None, ...]:
    """Windows as Qwen 2 and 3 state them: behind a switch, from max_window_layers on, or by layer_types."""
    if not config.flag("use_sliding_window", False):
        return (None,) * n_layers
    window = config.optional_integer("sliding_window", 4096)
    first = config.integer("max_window_layers", 28, minimum=0)
    by_default = [
        "sliding_attention" if window is not None and layer >= first else "full_attention"
        for layer in range(n_layers)
    ]
    return read_windows(config, read_layer_types(config, n_layers, by_default), 4096)


def read_uniform_windows(config: Config, n_layers: int, default: int | None) -> tuple[int | None, ...]:
    """The same window on all layers, or none where the key is `null`."""
    return (config.optional_integer("sliding_window", default),) * n_layers


def require_layer_types(config: Config, windows: Sequence[int | None]) -> None:
    """Refuse a model whose layer_types say another thing than the windows that its family reads."""
    says = ["full_attention" if window is None else "sliding_attention" for window in windows]
    for layer, layer_type in enumerate(read_layer_types(config, len(windows), says)):
        if layer_type != says[layer]:
            raise config.unsupported("layer_types", layer_type, f"{says[layer]} in layer {layer}")
