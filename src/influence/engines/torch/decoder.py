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


# What a block adds to the residual, before its projection: of it each rank has a part.
_Term = tuple[Tensor, Linear, Norm | None]


class Decoder:
    """The arithmetic of one spec over weights that lie on one device."""

    def __init__(self, spec: ModelSpec, weights: DeviceWeights, ops: Ops, group: Group = ALONE) -> None:
        self._spec, self._weights, self._ops, self._group = spec, weights, ops, group
        self._heads = Heads(spec.n_heads, spec.n_kv_heads, spec.head_dim, spec.qk_norm)
        # No kind of rope has a factor that depends on the context.
        self._factors = [rope_frequencies(rope, 1)[1] for rope in spec.ropes]

    def hidden(self, batch: Batch, kv: Tensor) -> Tensor:
        """What the blocks make of the tokens, (n, hidden_size) float32; `kv` is every layer's cache, and written to."""
        x = self._ops.embedded(self._weights.embed, batch.token_ids, self._spec.embedding_scale)
        both = zip(batch.frequencies, self._factors, strict=True)
        turns = [self._ops.turns(batch.positions, frequencies, factor) for frequencies, factor in both]
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
        spec = self._spec
        attention = self._attention(x, index, layer, batch, kv, turns), layer.o, layer.attn_post_norm
        if not spec.parallel_block:
            x = self._plus(x, attention)
        norm = layer.ffn_norm or (layer.attn_norm if spec.parallel_block else None)
        inner = self._ops.gate_up(x, norm, layer.up, spec.activation, spec.gated_mlp)
        mlp = inner, layer.down, layer.ffn_post_norm
        return self._plus(x, attention, mlp) if spec.parallel_block else self._plus(x, mlp)

    def _plus(self, x: Tensor, *terms: _Term) -> Tensor:
        """x + residual_scale * post_norm(linear(y)), summed over the terms; those without a norm meet at once."""
        scale, plain = self._spec.residual_scale, [term for term in terms if term[2] is None]
        if plain:
            x = self._group.share(x)
            for y, linear, _ in plain:
                x = self._ops.linear_residual(y, linear.weight, linear.bias, x, scale)
            x = self._group.summed(x)
        for y, linear, norm in terms:
            if norm is not None:
                y = self._group.summed(self._ops.linear_residual(y, linear.weight, linear.bias, None))
                x = torch.add(x, self._ops.normed(y, norm), alpha=scale)
        return x

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
