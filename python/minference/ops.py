# SPDX-License-Identifier: Apache-2.0
"""The ops as functions: estimate -> plan -> compute, all three stages at once or one by one.

Shapes, in all functions: ``q`` ``[batch, seqlen_q, num_heads_q, head_dim]``, ``k`` ``[batch,
seqlen_k, num_heads_kv, head_dim]``, ``v`` ``[batch, seqlen_k, num_heads_kv, head_dim_v]``, ``out``
``[batch, seqlen_q, num_heads_q, head_dim_v]``, where ``head_dim_v`` may differ from ``head_dim``;
float32, bfloat16 or float16. ``lse`` ``[batch, num_heads_q, seqlen_q]``, float32, natural log. Only
the innermost stride must be 1, so a transposed view of ``[batch, num_heads, seqlen, head_dim]`` is
read in place.

Attention is causal, and row ``i`` is at position ``i + seqlen_k - seqlen_q``: a chunk of a
prompt is simply ``seqlen_q < seqlen_k``. ``softmax_scale`` defaults to ``head_dim ** -0.5``. A row
that sees no key has ``out == 0`` and ``lse == -inf``.

Every function raises ValueError if an argument is wrong, NotImplementedError if no built backend
serves the call, MemoryError if memory cannot be allocated, and RuntimeError if CUDA fails. The ops
under ``torch.ops.minference`` raise RuntimeError with the same text. They have no backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from minference import _C
from minference._C import DEFAULT_LAST_Q, DEFAULT_LOCAL, DEFAULT_SINK
from minference._library import call
from minference.patterns import Dense, Pattern, to_tensor

__all__ = [
    "a_shape_attn",
    "block_index_attn",
    "block_sparse_attn",
    "count_key_tiles",
    "density",
    "estimate_blocks",
    "estimate_vs",
    "merge_attn",
    "min_sparse_seqlen",
    "prefill_attn",
    "vs_attn",
    "vs_sparse_attn",
]

_ops = torch.ops.minference


# ---- All stages in one call ----------------------------------------------------------------------


def prefill_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patterns: Pattern | Sequence[Pattern],
    *,
    softmax_scale: float | None = None,
    last_q: int | None = None,
    sink: int | None = None,
    local: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Estimate, plan and compute attention, each query head with its own pattern.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        patterns: One per query head, or one for all heads.
        softmax_scale: Multiplies ``q @ k.T``.
        last_q: Replaces ``last_q`` of every :class:`minference.VerticalSlash` in ``patterns``.
        sink: Replaces their ``sink``.
        local: Replaces their ``local``.

    Returns:
        ``out`` and ``lse``.
    """
    result = call(
        _ops.prefill_attn.default,
        q,
        k,
        v,
        to_tensor(patterns),
        softmax_scale=softmax_scale,
        last_q=last_q,
        sink=sink,
        local=local,
    )
    return cast("tuple[Tensor, Tensor]", result)


def vs_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    vertical_size: int,
    slash_size: int,
    *,
    softmax_scale: float | None = None,
    last_q: int = DEFAULT_LAST_Q,
    sink: int = DEFAULT_SINK,
    local: int = DEFAULT_LOCAL,
) -> Tensor:
    """:class:`minference.VerticalSlash` on every head. Returns ``out``."""
    result = call(
        _ops.vs_attn.default,
        q,
        k,
        v,
        vertical_size,
        slash_size,
        softmax_scale=softmax_scale,
        last_q=last_q,
        sink=sink,
        local=local,
    )
    return cast("Tensor", result)


def a_shape_attn(
    q: Tensor, k: Tensor, v: Tensor, sink: int, window: int, *, softmax_scale: float | None = None
) -> Tensor:
    """:class:`minference.AShape` on every head. Returns ``out``."""
    result = call(_ops.a_shape_attn.default, q, k, v, sink, window, softmax_scale=softmax_scale)
    return cast("Tensor", result)


def block_sparse_attn(
    q: Tensor, k: Tensor, v: Tensor, top_k: int, *, softmax_scale: float | None = None
) -> Tensor:
    """:class:`minference.BlockSparse` on every head. Returns ``out``."""
    result = call(_ops.block_sparse_attn.default, q, k, v, top_k, softmax_scale=softmax_scale)
    return cast("Tensor", result)


# ---- Stage by stage ------------------------------------------------------------------------------


def estimate_vs(
    q: Tensor,
    k: Tensor,
    vertical_size: int,
    slash_size: int,
    *,
    softmax_scale: float | None = None,
    last_q: int = DEFAULT_LAST_Q,
    sink: int = DEFAULT_SINK,
    local: int = DEFAULT_LOCAL,
    vertical_p: float = 1.0,
    slash_p: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Select the key columns and the distances that the last ``last_q`` rows attend most.

    Args:
        q: Queries.
        k: Keys.
        vertical_size: Columns per head; at least ``sink``, at most ``seqlen_k`` are returned.
        slash_size: Distances per head; at least ``local``, at most ``seqlen_k`` are returned.
        softmax_scale: Multiplies ``q @ k.T``.
        last_q: Rows that estimate, counted from the end, 1 to 64.
        sink: First columns, always kept; they count.
        local: Distances ``[0, local)``, always kept; they count.
        vertical_p: Keep the smallest set of columns that holds this share of the score, in (0, 1].
        slash_p: The same for distances.

    Returns:
        ``vertical_index`` and ``slash_index``, int32 ``[batch, num_heads_q, size]``, ascending, no
        duplicates; with a share below 1, ``-1`` fills the end.
    """
    result = call(
        _ops.estimate_vs.default,
        q,
        k,
        vertical_size,
        slash_size,
        softmax_scale=softmax_scale,
        last_q=last_q,
        sink=sink,
        local=local,
        vertical_p=vertical_p,
        slash_p=slash_p,
    )
    return cast("tuple[Tensor, Tensor]", result)


def estimate_blocks(
    q: Tensor, k: Tensor, top_k: int, *, softmax_scale: float | None = None, top_p: float = 1.0
) -> Tensor:
    """Select, per 64 query rows, the ``top_k`` 64-key blocks with the largest mean-pooled score.

    Args:
        q: Queries.
        k: Keys.
        top_k: Blocks per row block; the first block and those of the diagonal are among them.
        softmax_scale: Multiplies the score before the softmax of ``top_p``; else not used.
        top_p: Keep the smallest set of blocks that holds this share of the softmax, in (0, 1].

    Returns:
        ``block_index``, int32 ``[batch, num_heads_q, ceil(seqlen_q / 64), top_k]``, ascending;
        ``-1`` fills the end.
    """
    result = call(
        _ops.estimate_blocks.default, q, k, top_k, softmax_scale=softmax_scale, top_p=top_p
    )
    return cast("Tensor", result)


def vs_sparse_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    vertical_index: Tensor,
    slash_index: Tensor,
    *,
    softmax_scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attend the given columns and distances, in the form that :func:`estimate_vs` returns.

    Distances are widened to runs of whole 64-key blocks first; no key counts twice. Returns ``out``
    and ``lse``.
    """
    result = call(
        _ops.vs_sparse_attn.default,
        q,
        k,
        v,
        vertical_index,
        slash_index,
        softmax_scale=softmax_scale,
    )
    return cast("tuple[Tensor, Tensor]", result)


def block_index_attn(
    q: Tensor, k: Tensor, v: Tensor, block_index: Tensor, *, softmax_scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Attend the given blocks, in the form that :func:`estimate_blocks` returns.

    Returns ``out`` and ``lse``.
    """
    result = call(_ops.block_index_attn.default, q, k, v, block_index, softmax_scale=softmax_scale)
    return cast("tuple[Tensor, Tensor]", result)


def merge_attn(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Merge attention of the same rows over two disjoint key sets. Returns ``out`` and ``lse``."""
    result = call(_ops.merge_attn.default, out_a, lse_a, out_b, lse_b)
    return cast("tuple[Tensor, Tensor]", result)


# ---- Work ----------------------------------------------------------------------------------------


def count_key_tiles(
    q: Tensor,
    k: Tensor,
    patterns: Pattern | Sequence[Pattern],
    *,
    softmax_scale: float | None = None,
) -> Tensor:
    """Count the 64-row by 64-key tiles that :func:`prefill_attn` computes, without attention.

    Returns:
        int64 ``[batch, num_heads_q]``, on the device of ``q``.
    """
    result = call(
        _ops.count_key_tiles.default, q, k, to_tensor(patterns), softmax_scale=softmax_scale
    )
    return cast("Tensor", result)


def density(
    q: Tensor,
    k: Tensor,
    patterns: Pattern | Sequence[Pattern],
    *,
    softmax_scale: float | None = None,
) -> Tensor:
    """Return the share of the dense causal tiles that :func:`prefill_attn` computes.

    Returns:
        float64 ``[batch, num_heads_q]``, 1 for a dense head, on the device of ``q``.
    """
    tiles = count_key_tiles(q, k, patterns, softmax_scale=softmax_scale)
    return tiles.double() / count_key_tiles(q, k, Dense())


# ---- Choosing patterns ---------------------------------------------------------------------------


def min_sparse_seqlen(device: torch.device | str = "cpu") -> int:
    """Return the smallest ``seqlen_k`` at which vertical-slash is worth its estimate on ``device``.

    Below, dense attention takes no longer. A constant of the backend, for sizes (500, 700):
    measured for the CPU, estimated for GPUs so far. No call depends on it; it is advice to callers
    that choose patterns, as :func:`set_patterns` does.

    Raises:
        ValueError: ``device`` is not one that torch knows.
        NotImplementedError: No backend serves the device.
    """
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        msg = f"device: expected one that torch knows, got {device!r}"
        raise ValueError(msg) from None
    if device.type not in ("cpu", "cuda"):
        msg = f"device: no backend serves {device.type} devices"
        raise NotImplementedError(msg)
    return _C.min_sparse_seqlen(cuda=device.type == "cuda", index=device.index or 0)
