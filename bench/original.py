# SPDX-License-Identifier: Apache-2.0
"""MInference as published: its index pipeline rewritten here, its attention from its package.

The index, per query head, in torch: scores of the last 64 queries in the model's dtype, a softmax
in float32, column sums and diagonal sums, two top-k, two sorts, and the conversion to two lists per
row block: 64-wide blocks, and columns. ``per_head`` loops over the heads as the original does.
``all_heads`` does the same for all at once, the best that this formulation allows. K is repeated to
all query heads beforehand, untimed. The original's conversion is a CUDA C++ kernel with one thread
per row block and head; here it is a Triton kernel with one program.

Its Triton attention and the code around it are imported from its source package, and never copied:

    export MINFERENCE_SKIP_CUDA_BUILD=TRUE
    pip download --no-deps --no-binary :all: --no-build-isolation minference
    tar xf minference-*.tar.gz    # then: --original minference-0.1.6.0

Source: MInference (arXiv:2407.02490), Algorithm 1 and Appendix C.4.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
import types
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bench.inputs import BLOCK
from bench.reference import LAST_Q, LOCAL, SINK, Keys, causal

PACKAGE = "minference_original"  # Our package is also called `minference`.
MODULE = "pit_sparse_flash_attention_v2"


class Lists(NamedTuple):
    """Per row block: first keys of 64-wide blocks, and single columns; int32."""

    block_count: Tensor  # [heads, row_blocks]
    block_offset: Tensor  # [heads, row_blocks, slash_size]
    column_count: Tensor
    column_index: Tensor  # [heads, row_blocks, vertical_size]


def heads_first(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """``[heads, seqlen, head_dim]`` of batch 0, K repeated to the query heads."""
    group = q.shape[2] // k.shape[2]
    q, k = (x[0].transpose(0, 1) for x in (q, k))
    return q.contiguous(), k.repeat_interleave(group, dim=0).contiguous()


# ---- Index: vertical-slash -----------------------------------------------------------------------


def select(q: Tensor, k: Tensor, budget: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Columns ascending and distances descending, int32 ``[heads, size]``, for heads-first q, k."""
    seqlen, head_dim = k.shape[1:]
    last = min(LAST_Q, seqlen)
    sizes = [min(seqlen, max(n, least)) for n, least in zip(budget, (SINK, LOCAL), strict=True)]
    scores = torch.einsum("hmd,hnd->hmn", q[:, -last:], k) / math.sqrt(head_dim)
    row = torch.arange(last, device=q.device)
    scores[:, :, -last:].masked_fill_(row[:, None] < row[None], -torch.inf)
    p = torch.softmax(scores, dim=-1, dtype=torch.float32)
    vertical = p.sum(dim=1)
    vertical[:, :SINK] = torch.inf
    slash = diagonal_sums(p)
    slash[:, -LOCAL:] = torch.inf
    columns = vertical.topk(sizes[0], dim=-1).indices
    distances = seqlen - 1 - slash.topk(sizes[1], dim=-1).indices
    return (
        columns.to(torch.int32).sort(dim=-1).values,
        distances.to(torch.int32).sort(dim=-1, descending=True).values,
    )


def diagonal_sums(p: Tensor) -> Tensor:
    """Entry t of ``[heads, seqlen]``: the sum over rows m of ``t - (rows - 1) + m``, if in range.

    As in the original: pads both sides with zeros, and reads with rows that are one longer.
    """
    heads, rows, seqlen = p.shape
    padded = torch.nn.functional.pad(p, (rows, rows))
    width = seqlen + 2 * rows
    skewed = padded.as_strided((heads, rows, seqlen + rows), (rows * width, width + 1, 1))
    return skewed.sum(dim=1)[:, 1:][:, :seqlen]


def convert_heads(columns: Tensor, distances: Tensor, seqlen: int) -> Lists:
    """Lists of all row blocks, in one launch."""
    shape = columns.shape[0], math.ceil(seqlen / BLOCK)
    lists = Lists(
        columns.new_zeros(shape),
        columns.new_zeros(*shape, distances.shape[1]),
        columns.new_zeros(shape),
        columns.new_zeros(*shape, columns.shape[1]),
    )
    if columns.is_cuda:
        from bench.original_kernel import convert

        sizes = columns.shape[1], distances.shape[1], shape[1]
        convert[shape[::-1]](columns, distances, *lists, *sizes, BLOCK=BLOCK, num_warps=1)
        return lists
    for head, row_block in ((h, r) for h in range(shape[0]) for r in range(shape[1])):
        listed = convert_row(columns[head].tolist(), distances[head].tolist(), row_block)
        for count, index, values in zip(lists[::2], lists[1::2], listed, strict=True):
            count[head, row_block] = len(values)
            index[head, row_block, : len(values)] = torch.tensor(values)
    return lists


def convert_row(
    columns: list[int], distances: list[int], row_block: int
) -> tuple[list[int], list[int]]:
    """One row block's blocks and columns, by the definition: the slow reference."""
    end_row = BLOCK * (row_block + 1)
    ranges: list[list[int]] = []
    for end in (max(end_row - d, BLOCK) for d in distances if d < end_row):
        if not ranges or end > ranges[-1][1] + BLOCK:
            ranges.append([end - BLOCK, end])
        elif end > ranges[-1][1]:
            ranges[-1][1] += BLOCK
    blocks: list[int] = []
    singles: list[int] = []
    next_column = 0
    for low, high in ranges:
        blocks += range(low, high, BLOCK)
        while next_column < len(columns) and columns[next_column] < high:
            if columns[next_column] < low:
                singles.append(columns[next_column])
            next_column += 1
    return blocks, singles


def all_heads(q: Tensor, k: Tensor, budget: tuple[int, int]) -> Lists:
    """Estimate, select and convert for all heads together."""
    return convert_heads(*select(q, k, budget), k.shape[1])


def per_head(q: Tensor, k: Tensor, budget: tuple[int, int]) -> None:
    """The same, head by head, as in the original; frees a head's lists before the next."""
    for one_q, one_k in zip(q.split(1), k.split(1), strict=True):
        all_heads(one_q, one_k, budget)


# ---- Index: block-sparse -------------------------------------------------------------------------


def select_blocks(q: Tensor, k: Tensor, top_k: int) -> Tensor:
    """Block ids ``[heads, row_blocks, top_k]`` ascending, for heads-first q, k."""
    pooled = [torch.nn.functional.pad(x, (0, 0, 0, -x.shape[1] % BLOCK)) for x in (q, k)]
    pooled = [x.unflatten(1, (-1, BLOCK)).mean(dim=2) for x in pooled]
    scores = torch.einsum("hmd,hnd->hmn", *pooled)
    row_blocks = torch.arange(scores.shape[1], device=q.device)
    scores.masked_fill_(row_blocks[:, None] < row_blocks[None], -torch.inf)
    top_k = min(top_k, scores.shape[2])
    return scores.topk(top_k, dim=-1).indices.to(torch.int32).sort(dim=-1).values


def select_blocks_per_head(q: Tensor, k: Tensor, top_k: int) -> None:
    for one_q, one_k in zip(q.split(1), k.split(1), strict=True):
        select_blocks(one_q, one_k, top_k)


# ---- Attention -----------------------------------------------------------------------------------


@functools.cache  # Modules are loaded once per process.
class Source:
    """The package in ``folder``, which holds ``minference/ops``."""

    def __init__(self, folder: Path) -> None:
        package = folder / "minference"
        if not (package / "ops" / f"{MODULE}.py").is_file():
            msg = f"{folder} holds no minference/ops/{MODULE}.py"
            raise RuntimeError(msg)
        for name, path in ((PACKAGE, package), (f"{PACKAGE}.ops", package / "ops")):
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(path)]
        self.conversion = "its own"
        try:
            importlib.import_module(f"{PACKAGE}.cuda")
        except ImportError:  # Not built in place.
            self.conversion = "that of original.py"
            module = types.ModuleType(f"{PACKAGE}.cuda")
            module.convert_vertical_slash_indexes = _convert
            sys.modules[module.__name__] = module
        self._ops = importlib.import_module(f"{PACKAGE}.ops.{MODULE}")
        # Otherwise kernels of other installed libraries would replace the Triton one.
        self._ops.sparse_attn_func = self._ops.convert_vertical_slash_indexes_opt = None

    def attention(self, q: Tensor, k: Tensor, v: Tensor, budget: tuple[int, int]) -> Tensor:
        """One layer, head by head; ``[heads, seqlen, head_dim]``, K and V repeated."""
        out = torch.empty_like(q)
        for head in range(q.shape[0]):
            one = [x[head : head + 1] for x in (q, k, v)]
            columns, distances = select(*one[:2], budget)
            batch = [x[None] for x in (*one, columns, distances)]
            out[head] = self._ops.vertical_slash_sparse_attention(*batch)[0, 0]
        return out


def _convert(
    seqlens: Tensor, columns: Tensor, distances: Tensor, context: int, block_m: int, block_n: int
) -> tuple[Tensor, ...]:
    """Replaces the compiled function of this name, for one sequence."""
    if len(seqlens) != 1 or (block_m, block_n) != (BLOCK, BLOCK):
        msg = "only one sequence, in blocks of 64"
        raise ValueError(msg)
    return tuple(field[None] for field in convert_heads(columns[0], distances[0], context))


def keys_of(q: Tensor, k: Tensor, budget: tuple[int, int]) -> Keys:
    """The keys that the original's own selection attends, by the slow reference conversion."""

    def keys(position: Tensor, head: int) -> Tensor:
        one = [x[head : head + 1] for x in (q, k)]
        columns, distances = (x[0].tolist() for x in select(*one, budget))
        mask = torch.zeros((len(position), k.shape[1] + BLOCK), dtype=torch.bool)
        for row, row_block in enumerate((position // BLOCK).tolist()):
            blocks, singles = convert_row(columns, distances, row_block)
            for first in blocks:
                mask[row, first : first + BLOCK] = True
            mask[row, singles] = True
        return mask[:, : k.shape[1]].to(position.device) & causal(position, k.shape[1])

    return keys
