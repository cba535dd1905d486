# SPDX-License-Identifier: Apache-2.0
"""Attention of one head as a picture: where its mass lies, and which keys a pattern kept of it.

A map is ``[cells, cells]``: each cell stands for a square of queries x keys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import minference
from minference.demo.candidates import Candidate
from minference.demo.prefill import kept_mass

CELLS = 256  # A side of a map: also the head_dim_v of the one-hot values, at most 256.


@dataclass(frozen=True)
class CapturedLayer:
    """What one layer handed to its attention function, ``[1, seqlen, num_heads, head_dim]``."""

    layer_idx: int
    q: Tensor
    k: Tensor
    v: Tensor
    softmax_scale: float


class LayerCapture:
    """Observer that keeps a copy of the inputs of a few layers."""

    def __init__(self, layer_indices: Sequence[int]) -> None:
        self.layer_indices = frozenset(layer_indices)
        self.layers: list[CapturedLayer] = []

    def __call__(
        self, layer_idx: int, q: Tensor, k: Tensor, v: Tensor, softmax_scale: float
    ) -> None:
        """Copy the inputs of a layer that is wanted."""
        if layer_idx in self.layer_indices:
            layer = CapturedLayer(layer_idx, q.clone(), k.clone(), v.clone(), softmax_scale)
            self.layers.append(layer)


@dataclass(frozen=True)
class KeptMap:
    """What a pattern keeps of one head.

    Attributes:
        keys: Of each cell, the share of its causal keys that are kept; NaN where it has none.
        attention: Of each cell, the dense softmax mass on its kept keys, mean over its rows.
        density: Tiles computed, over those of dense attention.
        mass: Sum of ``attention`` over the keys, mean over the last half of the rows.
    """

    keys: Tensor
    attention: Tensor
    density: float
    mass: float


@dataclass(frozen=True)
class HeadMaps:
    """One query head: its dense attention, and what each of several patterns keeps of it."""

    layer_idx: int
    head_idx: int
    dense: KeptMap
    kept: list[KeptMap]


def choose_heads(layers: Sequence[CapturedLayer]) -> list[int]:
    """Choose one head of each layer to show: the one that looks furthest back.

    Most heads attend the first keys and their neighbourhood, which any pattern keeps. The mass that
    they put elsewhere is what a pattern must find.
    """
    chosen = []
    for layer in layers:
        near = minference.AShape(64, max(64, layer.q.shape[1] // 8))
        near_mass = kept_mass(layer.q, layer.k, layer.v, near, softmax_scale=layer.softmax_scale)
        chosen.append(int(near_mass.argmin()))
    return chosen


def head_maps(layer: CapturedLayer, head_idx: int, candidates: Sequence[Candidate]) -> HeadMaps:
    """Draw up the maps of one head."""
    kv_head_idx = head_idx * layer.k.shape[2] // layer.q.shape[2]
    q = layer.q[:, :, head_idx : head_idx + 1].float()
    k = layer.k[:, :, kv_head_idx : kv_head_idx + 1].float()
    patterns = [candidate.of_head(layer.layer_idx, head_idx) for candidate in candidates]
    dense, *kept = (
        kept_map(q, k, pattern, softmax_scale=layer.softmax_scale)
        for pattern in (minference.Dense(), *patterns)
    )
    return HeadMaps(layer.layer_idx, head_idx, dense, kept)


def kept_map(q: Tensor, k: Tensor, pattern: minference.Pattern, *, softmax_scale: float) -> KeptMap:
    """Let the kernel itself say which keys it attends, and how much.

    With one-hot values, ``out`` is the softmax mass per cell, normalised over the kept keys;
    exp(lse_kept - lse_all) makes it a share of the dense mass. With q = 0 all kept keys weigh the
    same, so that ``out`` is the share of them in each cell, and exp(lse) their number.

    Args:
        q: ``[1, seqlen, 1, head_dim]``, float32.
        k: Like ``q``.
        pattern: Of this head; estimated from ``q`` and ``k``.
        softmax_scale: Multiplies ``q @ k.T``.
    """
    seqlen = q.shape[1]
    members = F.one_hot(torch.arange(seqlen) * CELLS // seqlen, CELLS).float()
    values = members[None, :, None]
    attend = estimated_attention(q, k, pattern, softmax_scale=softmax_scale)

    out, lse = attend(q, k, values)
    _, lse_all = minference.prefill_attn(
        q, k, values, minference.Dense(), softmax_scale=softmax_scale
    )
    kept = (lse - lse_all)[0, 0].exp()
    rows_of_cell = members.sum(0)
    attention = members.T @ (out[0, :, 0] * kept[:, None]) / rows_of_cell[:, None]

    out, lse = attend(torch.zeros_like(q), k, values)
    num_kept = members.T @ (out[0, :, 0] * lse[0, 0].exp()[:, None])
    first_key = rows_of_cell.cumsum(0) - rows_of_cell
    visible = (torch.arange(1, seqlen + 1)[:, None] - first_key).clamp(min=0).minimum(rows_of_cell)
    keys = num_kept / (members.T @ visible)

    density = float(minference.density(q, k, pattern, softmax_scale=softmax_scale))
    return KeptMap(keys, attention, density, mass=float(kept[seqlen // 2 :].mean()))


def estimated_attention(
    q: Tensor, k: Tensor, pattern: minference.Pattern, *, softmax_scale: float
) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Estimate ``pattern`` from ``q`` and ``k``; return attention over the keys that it found.

    What is returned takes any other q, k, v of the same length, and gives ``out`` and ``lse``.
    """
    if isinstance(pattern, minference.VerticalSlash):
        lists = minference.estimate_vs(
            q, k, **dataclasses.asdict(pattern), softmax_scale=softmax_scale
        )
        return lambda q, k, v: minference.vs_sparse_attn(
            q, k, v, *lists, softmax_scale=softmax_scale
        )
    if isinstance(pattern, minference.BlockSparse):
        blocks = minference.estimate_blocks(
            q, k, pattern.top_k, softmax_scale=softmax_scale, top_p=pattern.top_p
        )
        return lambda q, k, v: minference.block_index_attn(
            q, k, v, blocks, softmax_scale=softmax_scale
        )
    # Of the others, the position alone decides.
    return lambda q, k, v: minference.prefill_attn(q, k, v, pattern, softmax_scale=softmax_scale)
