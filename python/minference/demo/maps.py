# SPDX-License-Identifier: Apache-2.0
"""Attention of one head as a picture: where its mass lies, and which keys a pattern kept of it.

A map is ``[cells, cells]``: each cell stands for a square of queries x keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import minference
from minference.demo.candidates import Candidate
from minference.demo.prefill import kept_mass

CELLS = 256  # A side of a map: also the head_dim of the one-hot values, whose largest is 256.


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
    """Of each cell, the share of its causal keys that a pattern kept; and its two summaries."""

    kept: Tensor
    density: float
    mass: float


@dataclass(frozen=True)
class HeadMaps:
    """One head: its dense attention (mean mass per query row), and what each pattern kept."""

    layer_idx: int
    head_idx: int
    attention: Tensor
    kept: list[KeptMap]


def cell_of_keys(seqlen: int) -> Tensor:
    """Return the cell that each of ``seqlen`` positions falls into, 0 to ``CELLS - 1``."""
    return torch.arange(seqlen) * CELLS // seqlen


def attention_map(q: Tensor, k: Tensor, *, softmax_scale: float) -> Tensor:
    """Sum dense causal attention of one head over the keys of a cell, average it over its rows.

    Args:
        q: ``[seqlen, head_dim]``
        k: ``[seqlen, head_dim]``
        softmax_scale: Multiplies ``q @ k.T``.
    """
    seqlen = q.shape[0]
    cell = cell_of_keys(seqlen)
    members = F.one_hot(cell, CELLS).float()
    rows_of_cells = []
    positions = torch.arange(seqlen)
    for rows in torch.split(positions, 512):
        scores = q[rows].float() @ k.float().T * softmax_scale
        scores.masked_fill_(positions > rows[:, None], -torch.inf)
        rows_of_cells.append(scores.softmax(-1) @ members)
    mass = torch.cat(rows_of_cells)
    return members.T @ mass / members.sum(0)[:, None]


def kept_map(q: Tensor, k: Tensor, pattern: minference.Pattern, *, softmax_scale: float) -> Tensor:
    """Return the share of each cell's causal keys that ``pattern`` kept; NaN where there are none.

    The kernel itself says which keys it attends. With q = 0 all kept keys weigh the same, so
    with one-hot values ``out`` is the share of a row's kept keys in each cell, and exp(lse) is the
    number of them.

    Args:
        q: ``[1, seqlen, 1, head_dim]``, from which the pattern is estimated.
        k: ``[1, seqlen, 1, head_dim]``
        pattern: Of this head.
        softmax_scale: Multiplies ``q @ k.T``.
    """
    seqlen = q.shape[1]
    members = F.one_hot(cell_of_keys(seqlen), CELLS).float()
    values = members[None, :, None]
    zeros = torch.zeros_like(values)
    if isinstance(pattern, minference.VerticalSlash):
        sizes = pattern.vertical_size, pattern.slash_size
        index = minference.estimate_vs(q, k, *sizes, softmax_scale=softmax_scale)
        out, lse = minference.vs_sparse_attn(zeros, zeros, values, *index)
    elif isinstance(pattern, minference.BlockSparse):
        block_index = minference.estimate_blocks(q, k, pattern.top_k)
        out, lse = minference.block_index_attn(zeros, zeros, values, block_index)
    else:  # The position alone decides.
        out, lse = minference.prefill_attn(zeros, zeros, values, pattern)
    count = out[0, :, 0] * lse[0, 0].exp()[:, None]
    size = members.sum(0)
    first_key = size.cumsum(0) - size
    visible = (torch.arange(1, seqlen + 1)[:, None] - first_key).clamp(min=0).minimum(size)
    return (members.T @ count) / (members.T @ visible)


def choose_heads(layers: Sequence[CapturedLayer]) -> list[int]:
    """Choose one head of each layer to show: the one that looks furthest back.

    Most heads attend the first key and their neighbourhood, which any pattern keeps. The mass that
    the last rows put elsewhere is what a pattern must find.
    """
    chosen = []
    for layer in layers:
        far = minference.AShape(64, max(64, layer.q.shape[1] // 8))
        near_mass = kept_mass(layer.q, layer.k, layer.v, far, softmax_scale=layer.softmax_scale)
        chosen.append(int(near_mass.argmin()))
    return chosen


def head_maps(layer: CapturedLayer, head_idx: int, candidates: Sequence[Candidate]) -> HeadMaps:
    """Draw up the maps of one head, with what each of ``candidates`` keeps of it."""
    group = layer.q.shape[2] // layer.k.shape[2]
    q = layer.q[:, :, head_idx : head_idx + 1]
    k, v = (tensor[:, :, head_idx // group][:, :, None] for tensor in (layer.k, layer.v))
    kept = []
    for candidate in candidates:
        pattern = candidate.of_head(layer.layer_idx, head_idx)
        scale = layer.softmax_scale
        mass = kept_mass(q, k, v, pattern, softmax_scale=scale)
        density = minference.density(q, k, pattern, softmax_scale=scale)
        kept_keys = kept_map(q, k, pattern, softmax_scale=scale)
        kept.append(KeptMap(kept_keys, float(density), float(mass)))
    attention = attention_map(q[0, :, 0], k[0, :, 0], softmax_scale=layer.softmax_scale)
    return HeadMaps(layer.layer_idx, head_idx, attention, kept)
