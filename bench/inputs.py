# SPDX-License-Identifier: Apache-2.0
"""Tensors and index tensors for benchmarks, and their density.

All are drawn from a seed. The layout is ``[batch, seqlen, heads, head_dim]``, batch 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # Rows of a row block, keys of a key block.

Qkv = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Shape:
    """Llama-3.1-8B's head ratio and head_dim, with a quarter of its heads."""

    seqlen: int
    heads: int = 8
    heads_kv: int = 2
    head_dim: int = 128


def random_qkv(shape: Shape, dtype: torch.dtype, *, device: str = "cpu") -> Qkv:
    """Normal, with logits of standard deviation 3: some keys count, and out is not all rounding."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(heads: int) -> Tensor:
        size = (1, shape.seqlen, heads, shape.head_dim)
        return torch.randn(size, generator=generator, device=device).to(dtype)

    return draw(shape.heads).mul_(3), draw(shape.heads_kv), draw(shape.heads_kv)


# ---- Vertical-slash structure --------------------------------------------------------------------

ROPE_THETA = 500_000.0
NOISE = 0.5  # Standard deviation of the noise in each query and key.
BAND_TOKENS = 64.0  # Frequencies that turn faster than once in this many tokens fade.
CONTENT_DIMS = 16  # The last dims: they are not rotated, and hold what makes a column strong.
NUM_PEAKS = 12  # Distances that a head looks back to, besides distance 0.
SLASH_LOGIT = 9.0  # Logit at the strongest peak.
COLUMN_LOGIT = 11.0  # Logit of the strongest columns.
COLUMN_SHARE = 1 / 512  # Share of strong columns.


def vertical_slash_qkv(shape: Shape, dtype: torch.dtype, *, device: str = "cpu") -> Qkv:
    """Draw q, k, v whose attention has verticals and clustered slashes, as rotary heads have.

    Each key is a direction shared by its head, rotated by position, plus noise. Each query is that
    direction rotated back by several distances. Their product depends only on the distance: it has
    a peak around each of these, wide at the foot and ragged from the noise, so that the largest
    distances form bands of all widths (slashes). A few keys respond to a constant part of every
    query (verticals).

    The values are not those of a model. What matters for time is how many 64-wide runs the kept
    distances fall into. The runs of (1000, 6096) cover about 1.3 times as many keys as the kept
    distances would if they were adjacent; heads of a real model were seen at 1.1 to 1.9. Every
    report prints the resulting density.
    """
    generator = torch.Generator(device).manual_seed(0)
    rotary = shape.head_dim - CONTENT_DIMS
    like = {"dtype": torch.float64, "device": device}
    frequency = ROPE_THETA ** (-torch.arange(0, rotary, 2, **like) / rotary)
    one = torch.ones((), **like)
    turn = torch.polar(one, torch.arange(shape.seqlen, **like)[:, None] * frequency)
    turn = turn.to(torch.complex64)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device)

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device)

    def row(spectrum: Tensor, content: Tensor) -> Tensor:
        """``[seqlen, head_dim]``: rotated dims, then content dims."""
        turned = torch.view_as_real(turn * spectrum).flatten(1)
        rest = content.expand(shape.seqlen, CONTENT_DIMS)
        rest = rest + 0.1 * noise(shape.seqlen, CONTENT_DIMS)
        return torch.cat([turned + NOISE * noise(shape.seqlen, rotary), rest], dim=1).to(dtype)

    q = torch.empty(1, shape.seqlen, shape.heads, shape.head_dim, dtype=dtype, device=device)
    k = q.new_empty(1, shape.seqlen, shape.heads_kv, shape.head_dim)
    v = noise(*k.shape).to(dtype)
    # Logits carry 1 / sqrt(head_dim); the peak is a sum over rotary / 2 frequencies.
    amplitude = (1 / (1 + BAND_TOKENS * frequency)).float()
    amplitude *= math.sqrt(SLASH_LOGIT * math.sqrt(shape.head_dim) / amplitude.square().sum())
    content = math.sqrt(COLUMN_LOGIT * math.sqrt(shape.head_dim) / CONTENT_DIMS)
    group = shape.heads // shape.heads_kv
    for head in range(shape.heads):
        if head % group == 0:
            direction = torch.polar(amplitude, 2 * math.pi * uniform(rotary // 2))
            strength = torch.where(uniform(shape.seqlen) < COLUMN_SHARE, uniform(shape.seqlen), 0.0)
            strength[0] = 1.0  # The attention sink.
            k[0, :, head // group] = row(direction, content * strength[:, None])
        # Distances are drawn uniformly in their logarithm: heads look near more often than far.
        distance = torch.cat([0 * one[None], (shape.seqlen / 2) ** uniform(NUM_PEAKS).double()])
        weight = torch.cat([one[None], 0.4 + 0.5 * uniform(NUM_PEAKS).double()])
        looks_back = torch.polar(weight[:, None], -distance[:, None] * frequency).sum(0)
        looks_back = (looks_back / looks_back.abs().mean()).to(torch.complex64)
        q[0, :, head] = row(direction * looks_back, torch.full((), content, device=device))
    return q, k, v


# ---- Index tensors of a given density ------------------------------------------------------------


def random_runs(shape: Shape, density: float) -> Tensor:
    """Return ``slash_index [1, heads, n]``: the diagonal, and runs of 64 keys that never touch.

    The hardest layout for a kernel: many short runs that start at any alignment, different in each
    head. A distance covers ``64 / seqlen`` of causal attention on average.
    """
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(density * shape.seqlen / BLOCK))
    slots = torch.arange(1, shape.seqlen // (2 * BLOCK))  # Starts 128 m + 0..63: 65 apart or more.
    rows = []
    for _ in range(shape.heads):
        chosen = slots[torch.randperm(len(slots), generator=generator)[: count - 1]].sort().values
        offset = torch.randint(0, BLOCK, chosen.shape, generator=generator)
        rows.append(torch.cat([torch.zeros(1, dtype=torch.int64), 2 * BLOCK * chosen + offset]))
    return torch.stack(rows)[None].to(torch.int32)


def random_columns(shape: Shape, density: float) -> Tensor:
    """Return ``vertical_index [1, heads, n]``: column 0, and others drawn evenly per head."""
    generator = torch.Generator().manual_seed(0)
    count = max(1, round(density * shape.seqlen))
    rows = []
    for _ in range(shape.heads):
        chosen = 1 + torch.randperm(shape.seqlen - 1, generator=generator)[: count - 1]
        rows.append(torch.cat([torch.zeros(1, dtype=torch.int64), chosen.sort().values]))
    return torch.stack(rows)[None].to(torch.int32)


def random_blocks(shape: Shape, density: float, *, device: str = "cpu") -> Tensor:
    """Return ``block_index [1, heads, row_blocks, k]``: block 0, the diagonal, and random ones."""
    generator = torch.Generator(device).manual_seed(0)
    num_blocks = math.ceil(shape.seqlen / BLOCK)
    visible = torch.arange(1, num_blocks + 1)  # Key blocks that row block r may attend.
    target = density * visible.sum()
    top_k = next(n for n in range(2, num_blocks + 2) if visible.clamp(max=n).sum() >= target)

    score = torch.rand((shape.heads, num_blocks, num_blocks), generator=generator, device=device)
    ids = torch.arange(num_blocks, device=device)
    row, block = torch.meshgrid(ids, ids, indexing="ij")
    score[:, (block == 0) | (block == row)] = 2.0
    score[:, block > row] = -1.0
    top = score.topk(top_k, dim=-1)
    # Blocks beyond the diagonal sort to the end and become the fill.
    index = torch.where(top.values < 0, num_blocks, top.indices).sort(dim=-1).values
    return torch.where(index == num_blocks, -1, index)[None].to(torch.int32)


def no_index(shape: Shape) -> Tensor:
    """Return an index tensor without entries."""
    return torch.empty((1, shape.heads, 0), dtype=torch.int32)


# ---- Density -------------------------------------------------------------------------------------
# Keys that row blocks attend, over those that they attend when dense. Counted here from the
# definition instead of asking the library: padding that a kernel computes is its own loss, not work
# done.


def _ends(seqlen: int) -> Tensor:
    return (torch.arange(math.ceil(seqlen / BLOCK)) + 1) * BLOCK


def vertical_slash_density(seqlen: int, vertical_index: Tensor, slash_index: Tensor) -> float:
    """Density of ``[1, heads, n]`` columns and distances (run rule: see ``runs_of``)."""
    ends = _ends(seqlen).to(vertical_index.device)
    attended = 0
    for columns, distances in zip(vertical_index[0], slash_index[0], strict=True):
        ascending = columns[columns >= 0].long()
        # Columns before the row block's end, except those inside one of its runs.
        attended += int(torch.searchsorted(ascending, ends).sum())
        for near, far in runs_of(distances[distances >= 0].tolist()):
            first, last = (ends - far).clamp(min=0), (ends - near).clamp(min=0)
            inside = torch.searchsorted(ascending, last) - torch.searchsorted(ascending, first)
            attended += int((last - first - inside).sum())
    return attended / (int(ends.sum()) * slash_index.shape[1])


def runs_of(distances: list[int]) -> list[tuple[int, int]]:
    """Merge ``[d, d + 64)`` near to far, each run rounded up to whole blocks at its far end."""
    runs: list[list[int]] = []
    for distance in distances:
        if runs and distance <= runs[-1][1]:
            near, far = runs[-1]
            blocks = math.ceil((max(far, distance + BLOCK) - near) / BLOCK)
            runs[-1][1] = near + BLOCK * blocks
        else:
            runs.append([distance, distance + BLOCK])
    return [(near, far) for near, far in runs]


def block_density(seqlen: int, block_index: Tensor) -> float:
    """Density of ``[1, heads, row_blocks, k]`` key blocks."""
    attended = BLOCK * int((block_index >= 0).sum())
    return attended / (int(_ends(seqlen).sum()) * block_index.shape[1])


def a_shape_density(seqlen: int, sink: int, window: int) -> float:
    """Density of the union of a row block's rows."""
    ends = _ends(seqlen)
    first = (ends - BLOCK - window + 1).clamp(min=0)
    return int((ends - first + first.clamp(max=sink)).sum()) / int(ends.sum())
