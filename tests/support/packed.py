"""Packed weights and prepared activations in plain numpy, from the words of csrc/packed.h."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influence import _native

FORMATS = ["q8", "q4"]
GROUP = {"q8": 64, "q4": 32}
BLOCK = {"q8": 64, "q4": 256}  # columns of activations that share a scale
PANEL = 64
# kQ4Values of csrc/packed.h, which tools/fit_q4_table.py computed.
Q4_VALUES = np.array([1, 28, 48, 66, 81, 95, 109, 122, 134, 147, 161, 175, 190, 208, 228, 255]) - 128

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


def packed(w: npt.NDArray[np.generic], form: str, kernels: str = "generic", threads: int = 1) -> Bytes:
    out = np.full(_native.packed_bytes(form, w.shape[0], w.shape[1]), 0xAA, np.uint8)
    _native.pack(w, form, out, kernels, threads)
    return out


def unpacked(data: Bytes, form: str, rows: int, cols: int) -> npt.NDArray[np.float64]:
    """The weights that packed bytes stand for, (rows, cols)."""
    n_groups, n_panels = -(-cols // GROUP[form]), -(-rows // PANEL)
    panels = data.reshape(n_panels, -1)
    weights = _unpacked_q8(panels, n_groups) if form == "q8" else _unpacked_q4(panels, n_groups)
    return weights.reshape(n_panels * PANEL, -1)[:rows, :cols]


def _unpacked_q8(panels: Bytes, n_groups: int) -> npt.NDArray[np.float64]:
    """(panel, row, group, column)"""
    groups = panels.reshape(len(panels), n_groups, -1)
    halves = groups[:, :, : 2 * PANEL].copy().view(np.uint16)
    scales = (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)  # (panel, group, row)
    quads = groups[:, :, 2 * PANEL :].reshape(len(panels), n_groups, 16, PANEL, 4)
    values = (quads.astype(int) - 128).transpose(0, 3, 1, 2, 4).reshape(len(panels), PANEL, n_groups, -1)
    return values * scales.transpose(0, 2, 1)[..., None]


def _unpacked_q4(panels: Bytes, n_groups: int) -> npt.NDArray[np.float64]:
    """(panel, row, group, column)"""
    bases = (panels[:, :PANEL].astype(np.uint32) << 23).view(np.float32)[:, :, None].astype(np.float64)
    groups = panels[:, PANEL:].reshape(len(panels), n_groups, -1)
    scales = groups[:, :, :PANEL].transpose(0, 2, 1) * bases  # (panel, row, group)
    zeros = groups[:, :, PANEL : 2 * PANEL].view(np.int8).transpose(0, 2, 1).astype(int)
    quads = groups[:, :, 2 * PANEL :].reshape(len(panels), n_groups, 4, PANEL, 4)
    values = np.stack([Q4_VALUES[quads & 15], Q4_VALUES[quads >> 4]], axis=3).transpose(0, 4, 1, 2, 3, 5)
    return (values.reshape(len(panels), PANEL, n_groups, -1) - zeros[..., None]) * scales[..., None]


def seen(x: Floats, form: str) -> npt.NDArray[np.float64]:
    """The activations that a product with packed weights sees, (n_tokens, cols)."""
    n_tokens, cols = x.shape
    n_blocks = -(-cols // BLOCK[form])
    blocks = np.zeros((n_tokens, n_blocks * BLOCK[form]), np.float32)
    blocks[:, :cols] = x
    blocks = blocks.reshape(n_tokens, n_blocks, BLOCK[form])
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    factor = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    values = np.rint(blocks * factor).astype(np.float64)
    return (values * (largest / np.float32(127))).reshape(n_tokens, -1)[:, :cols]
