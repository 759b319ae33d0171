"""The blocks of `models/spec.py` over a batch of tokens: which op, in which order, on which weights.

It knows shapes and the spec, but no device, session or graph: whatever runs it
gives a `Batch` of tensors and takes hidden states or logits. Where several
ranks each have a part of the weights it says where the parts meet; its spec
then is the rank's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from influence.engines.torch.matrices import Heads, Linear, Norm
from influence.engines.torch.ops import Ops, normed, softcapped
from influence.engines.torch.parallel.group import ALONE, Group
from influence.engines.torch.weights import DeviceWeights, Layer
from influence.models.rope import rope_frequencies
from influence.models.spec import ModelSpec, Rope
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

    def __init__(self, spec: ModelSpec, weights: DeviceWeights, ops: Ops, group: Group = ALONE) -> None:
        self._spec, self._weights, self._ops, self._group = spec, weights, ops, group
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
        y = self._group.side_by_side(y, spec.vocab_size)
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
        spec, attended = self._spec, self._attention(x, index, layer, batch, kv, turns)
        if not spec.parallel_block:
            x = self._add(x, attended, layer.o, layer.attn_post_norm)
            inner = self._ops.gate_up(x, layer.ffn_norm, layer.up, spec.activation, spec.gated_mlp)
            return self._add(x, inner, layer.down, layer.ffn_post_norm)
        norm = layer.ffn_norm or layer.attn_norm
        inner = self._ops.gate_up(x, norm, layer.up, spec.activation, spec.gated_mlp)
        if layer.attn_post_norm is None and layer.ffn_post_norm is None:  # both terms meet at once
            x = self._term(self._group.share(x), attended, layer.o)
            return self._group.summed(self._term(x, inner, layer.down))
        x = self._add(x, attended, layer.o, layer.attn_post_norm)
        return self._add(x, inner, layer.down, layer.ffn_post_norm)

    def _add(self, x: Tensor, y: Tensor, linear: Linear, post_norm: Norm | None) -> Tensor:
        """x + residual_scale * post_norm(linear(y))"""
        if post_norm is None:
            return self._group.summed(self._term(self._group.share(x), y, linear))
        y = self._group.summed(self._ops.linear_residual(y, linear.weight, linear.bias, None))
        return torch.add(x, self._ops.normed(y, post_norm), alpha=self._spec.residual_scale)

    def _term(self, x: Tensor, y: Tensor, linear: Linear) -> Tensor:
        """x + residual_scale * linear(y), of which each rank has a term."""
        return self._ops.linear_residual(y, linear.weight, linear.bias, x, self._spec.residual_scale)

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
        project = self._project_together if self._norms_over_ranks else self._ops.project_heads
        q = project(
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

    @property
    def _norms_over_ranks(self) -> bool:
        """Whether q and k are normed over more heads than are here."""
        return self._spec.qk_norm == "full" and self._group.size > 1

    def _project_together(
        self,
        x: Tensor,
        norm: Norm | None,
        weights: Linear,
        cos: Tensor | None,
        sin: Tensor | None,
        rope: Rope | None,
        kv: Tensor,
        slots: Tensor,
        heads: Heads,
        q_norm: Norm | None,
        k_norm: Norm | None,
    ) -> Tensor:
        """As `ops.project_heads`."""
        qkv = self._ops.norm_linear(x, norm, weights)
        q, k, v = qkv.split([self._spec.q_dim, self._spec.kv_dim, self._spec.kv_dim], dim=-1)
        q, k = normed(q, q_norm, self._group.mean), normed(k, k_norm, self._group.mean)
        qkv = torch.cat([q.to(v.dtype), k.to(v.dtype), v], dim=-1)
        store: Tensor = self._ops.rope_and_store(
            qkv, cos, sin, rope, kv, slots, replace(heads, qk_norm="none")
        )
        return store

    def _turns(self, batch: Batch, rope: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each (n, rotary_dim / 2); angles in float32, as transformers has them."""
        angles = batch.positions.float().unsqueeze(1) * batch.frequencies[rope]
        return angles.cos() * self._factors[rope], angles.sin() * self._factors[rope]
