"""The blocks of `models/spec.py` over a batch of tokens: which op, in which order, on which weights.

It knows shapes and the spec, but no device, session or graph: whatever runs it
gives a `Batch` of tensors and takes hidden states or logits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from influence.engines.torch.matrices import Heads, Linear, Norm
from influence.engines.torch.ops import Ops, softcapped
from influence.engines.torch.weights import DeviceWeights, Layer
from influence.models.rope import rope_frequencies
from influence.models.spec import ModelSpec
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """n tokens of some sequences, one sequence after another, all on the device."""

    token_ids: Tensor  # (n,) int64
    positions: Tensor  # (n,) int64
    slots: Tensor  # (n,) int64: places in the cache, as `rope_and_store` takes them
    block_tables: Tensor  # (n_sequences, max_blocks) int32
    query_starts: Tensor  # (n_sequences + 1,) int32
    context_lengths: Tensor  # (n_sequences,) int32
    frequencies: tuple[
        Tensor, ...
    ]  # of each rope: (rotary_dim / 2,), or (n, rotary_dim / 2) if sessions differ


class Decoder:
    """The arithmetic of one spec over weights that lie on one device."""

    def __init__(self, spec: ModelSpec, weights: DeviceWeights, ops: Ops) -> None:
        self._spec, self._weights, self._ops = spec, weights, ops
        self._heads = Heads(spec.n_heads, spec.n_kv_heads, spec.head_dim, spec.qk_norm)
        # No kind of rope has a factor that depends on the context.
        self._factors = [rope_frequencies(rope, 1)[1] for rope in spec.ropes]

    def hidden(self, batch: Batch, kv: Tensor) -> Tensor:
        """What the blocks make of the tokens, (n, hidden_size) float32; `kv` is every layer's cache, and written to."""
        x = self._weights.embed[batch.token_ids].float() * self._spec.embedding_scale
        turns = [self._turns(batch, rope) for rope in range(len(self._spec.ropes))]
        for index, layer in enumerate(self._weights.layers):
            x = self._block(x, index, layer, batch, kv[index], turns)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """(n, hidden_size) -> (n, vocab_size) float32."""
        weights, spec = self._weights, self._spec
        y = self._ops.norm_linear(x, weights.final_norm, weights.head, torch.float32)
        return softcapped(y * spec.logit_scale, spec.logit_softcap)

    def _block(
        self,
        x: Tensor,
        index: int,
        layer: Layer,
        batch: Batch,
        kv: Tensor,
        turns: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        scale = self._spec.residual_scale
        attended = self._attention(x, index, layer, batch, kv, turns)
        after = self._add(x, attended, layer.o, layer.attn_post_norm, scale)
        f, norm = (
            (x, layer.ffn_norm or layer.attn_norm) if self._spec.parallel_block else (after, layer.ffn_norm)
        )
        inner = self._ops.gate_up(f, norm, layer.up, self._spec.activation, self._spec.gated_mlp)
        return self._add(after, inner, layer.down, layer.ffn_post_norm, scale)

    def _add(self, x: Tensor, y: Tensor, linear: Linear, post_norm: Norm | None, scale: float) -> Tensor:
        """x + scale * post_norm(linear(y))"""
        if post_norm is None:
            return self._ops.linear_residual(y, linear.weight, linear.bias, x, scale)
        y = self._ops.linear_residual(y, linear.weight, linear.bias, None)
        return torch.add(x, self._ops.normed(y, post_norm), alpha=scale)

    def _attention(
        self,
        x: Tensor,
        index: int,
        layer: Layer,
        batch: Batch,
        kv: Tensor,
        turns: list[tuple[Tensor, Tensor]],
    ) -> Tensor:
        """What the heads gather, before the output projection, (n, q_dim)."""
        spec = self._spec
        which = spec.layer_rope[index]
        rope, (cos, sin) = (None, (None, None)) if which is None else (spec.ropes[which], turns[which])
        q = self._ops.project_heads(
            x,
            layer.attn_norm,
            layer.qkv,
            cos,
            sin,
            rope,
            kv,
            batch.slots,
            self._heads,
            layer.q_norm,
            layer.k_norm,
        )
        attended: Tensor = self._ops.paged_attention(
            q,
            kv,
            batch.block_tables,
            batch.query_starts,
            batch.context_lengths,
            spec.attention_scale,
            spec.layer_window[index],
            spec.attention_softcap,
        )
        return attended.reshape(len(x), -1)

    def _turns(self, batch: Batch, rope: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each (n, rotary_dim / 2); angles in float32, as transformers has them."""
        angles = batch.positions.float().unsqueeze(1) * batch.frequencies[rope]
        return angles.cos() * self._factors[rope], angles.sin() * self._factors[rope]
