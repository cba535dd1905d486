# SPDX-License-Identifier: Apache-2.0
"""The index pipeline of MInference as published, written anew from its description: the peer.

Per query head, in torch: scores of the last 64 queries in the model's dtype, a softmax in float32,
column sums and diagonal sums, two top-k, two sorts, and the conversion to lists per row block: one
of 64-wide blocks, one of columns. ``per_head`` loops over the heads as the original does;
``all_heads`` does the same for all at once, which is the best that this formulation gives. K comes
repeated to all query heads, untimed.

The conversion is a kernel of CUDA C++ there; here one of Triton, with one program per row block and
head where the original has one thread, and the same lists.

Source: MInference (arXiv:2407.02490), Algorithm 1 and Appendix C.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LAST_Q, SINK, LOCAL = 64, 30, 100
BLOCK = 64


@dataclass
class Lists:
    """Per row block: first keys of 64-wide blocks, and single columns."""

    block_count: Tensor  # int32 [heads, row_blocks]
    block_offset: Tensor  # int32 [heads, row_blocks, slash_size]
    column_count: Tensor
    column_index: Tensor  # int32 [heads, row_blocks, vertical_size]


def heads_first(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """``[heads, seqlen, head_dim]`` of batch 0, K repeated to the query heads."""
    group = q.shape[2] // k.shape[2]
    return (
        q[0].transpose(0, 1).contiguous(),
        k[0].transpose(0, 1).repeat_interleave(group, dim=0).contiguous(),
    )


def select(q: Tensor, k: Tensor, budget: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Columns ascending and distances descending, int32 ``[heads, size]``, for heads-first q, k."""
    seqlen, head_dim = k.shape[1:]
    last = min(LAST_Q, seqlen)
    vertical_size, slash_size = (
        min(seqlen, max(budget[0], SINK)),
        min(seqlen, max(budget[1], LOCAL)),
    )
    scores = torch.einsum("hmd,hnd->hmn", q[:, -last:], k) / math.sqrt(head_dim)
    row = torch.arange(last, device=q.device)
    scores[:, :, -last:].masked_fill_(row[:, None] < row[None], -torch.inf)
    p = torch.softmax(scores, dim=-1, dtype=torch.float32)
    vertical = p.sum(dim=1)
    vertical[:, :SINK] = torch.inf
    slash = diagonal_sums(p)
    slash[:, -LOCAL:] = torch.inf
    columns = vertical.topk(vertical_size, dim=-1).indices
    distances = seqlen - 1 - slash.topk(slash_size, dim=-1).indices
    return (
        columns.to(torch.int32).sort(dim=-1).values,
        distances.to(torch.int32).sort(dim=-1, descending=True).values,
    )


def diagonal_sums(p: Tensor) -> Tensor:
    """Entry t of ``[heads, seqlen]``: the sum of row m's entry ``t - (rows - 1) + m``, where it is.

    The original's way: pad both sides with zeros, and read with rows that are one longer.
    """
    heads, rows, seqlen = p.shape
    padded = torch.nn.functional.pad(p, (rows, rows))
    width = seqlen + 2 * rows
    skewed = padded.as_strided((heads, rows, seqlen + rows), (rows * width, width + 1, 1))
    return skewed.sum(dim=1)[:, 1:][:, :seqlen]


def convert_heads(columns: Tensor, distances: Tensor, seqlen: int) -> Lists:
    """Lists of all row blocks, by one launch."""
    heads, row_blocks = columns.shape[0], math.ceil(seqlen / BLOCK)
    lists = Lists(
        columns.new_zeros(heads, row_blocks),
        columns.new_zeros(heads, row_blocks, distances.shape[1]),
        columns.new_zeros(heads, row_blocks),
        columns.new_zeros(heads, row_blocks, columns.shape[1]),
    )
    if not columns.is_cuda:
        for head in range(heads):
            for row_block in range(row_blocks):
                _convert_row(columns[head], distances[head], row_block, head, lists)
        return lists
    from bench.gpu_original_triton import convert

    convert(columns, distances, lists)
    return lists


def _convert_row(
    columns: Tensor, distances: Tensor, row_block: int, head: int, lists: Lists
) -> None:
    blocks, singles = convert_row(columns.tolist(), distances.tolist(), row_block)
    lists.block_count[head, row_block] = len(blocks)
    lists.block_offset[head, row_block, : len(blocks)] = torch.tensor(blocks)
    lists.column_count[head, row_block] = len(singles)
    lists.column_index[head, row_block, : len(singles)] = torch.tensor(singles)


def convert_row(
    columns: list[int], distances: list[int], row_block: int
) -> tuple[list[int], list[int]]:
    """One row block's blocks and columns, by the definition: the slow reference."""
    end_row = BLOCK * (row_block + 1)
    ends = [max(end_row - d, BLOCK) for d in distances if d < end_row]
    blocks: list[int] = []
    singles: list[int] = []
    ranges: list[list[int]] = []
    for end in ends:
        if not ranges or end > ranges[-1][1] + BLOCK:
            ranges.append([end - BLOCK, end])
        elif end > ranges[-1][1]:
            ranges[-1][1] += BLOCK
    next_column = 0
    for low, high in ranges:
        blocks += range(low, high, BLOCK)
        while next_column < len(columns) and columns[next_column] < high:
            if columns[next_column] < low:
                singles.append(columns[next_column])
            next_column += 1
    return blocks, singles


def all_heads(q: Tensor, k: Tensor, budget: tuple[int, int]) -> Lists:
    """Estimate, select and convert, for all heads together."""
    columns, distances = select(q, k, budget)
    return convert_heads(columns, distances, k.shape[1])


def per_head(q: Tensor, k: Tensor, budget: tuple[int, int]) -> None:
    """The same, head after head, as in the original; a head's lists are freed before the next."""
    for head in range(q.shape[0]):
        all_heads(q[head : head + 1], k[head : head + 1], budget)


# ---- Block-sparse --------------------------------------------------------------------------------


def select_blocks(q: Tensor, k: Tensor, top_k: int) -> Tensor:
    """Block ids ``[heads, row_blocks, top_k]`` ascending, for heads-first q, k."""
    pooled_q, pooled_k = (_pooled(x) for x in (q, k))
    scores = torch.einsum("hmd,hnd->hmn", pooled_q, pooled_k)
    row_blocks = torch.arange(scores.shape[1], device=q.device)
    scores.masked_fill_(row_blocks[:, None] < row_blocks[None], -torch.inf)
    top_k = min(top_k, scores.shape[2])
    return scores.topk(top_k, dim=-1).indices.to(torch.int32).sort(dim=-1).values


def _pooled(x: Tensor) -> Tensor:
    heads, seqlen, head_dim = x.shape
    padding = -seqlen % BLOCK
    if padding:
        x = torch.nn.functional.pad(x, (0, 0, 0, padding))
    return x.view(heads, -1, BLOCK, head_dim).mean(dim=2)


def select_blocks_per_head(q: Tensor, k: Tensor, top_k: int) -> None:
    for head in range(q.shape[0]):
        select_blocks(q[head : head + 1], k[head : head + 1], top_k)
