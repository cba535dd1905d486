# SPDX-License-Identifier: Apache-2.0
"""What minference computes, in float64 and plain torch: the definition for all backends.

One function per pattern makes a bool mask that says which keys each row attends;
:func:`attention_float64` does the rest. Nothing here calls minference, and nothing here is fast: it
is written to be read.

Shapes: q ``[batch, seqlen_q, num_heads_q, head_dim]``, k and v ``[batch, seqlen_k, num_heads_kv,
head_dim]``, a mask ``[..., seqlen_q, seqlen_k]``. Query row ``i`` is at position
``p_i = i + seqlen_k - seqlen_q`` and sees the keys ``j <= p_i``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 64  # Query rows of a row block, keys of a key block.


def row_blocks(seqlen_q: int) -> int:
    return -(-seqlen_q // BLOCK)


def positions(seqlen_q: int, seqlen_k: int) -> Tensor:
    """``p_i`` of every row, ``[seqlen_q]``."""
    return torch.arange(seqlen_q) + seqlen_k - seqlen_q


# ---- Masks: the pattern of one head, [seqlen_q, seqlen_k] ----------------------------------------


def dense_mask(seqlen_q: int, seqlen_k: int) -> Tensor:
    return torch.arange(seqlen_k) <= positions(seqlen_q, seqlen_k)[:, None]


def a_shape_mask(seqlen_q: int, seqlen_k: int, sink: int, window: int) -> Tensor:
    """``j < sink`` or ``p_i - j < window``."""
    key = torch.arange(seqlen_k)
    distance = positions(seqlen_q, seqlen_k)[:, None] - key
    return ((key < sink) | (distance < window)) & dense_mask(seqlen_q, seqlen_k)


def tri_shape_mask(seqlen_q: int, seqlen_k: int, sink: int, window: int, last: int) -> Tensor:
    """A-shape, and the last ``last`` rows of the call are dense."""
    is_last = torch.arange(seqlen_q)[:, None] >= seqlen_q - last
    mask = a_shape_mask(seqlen_q, seqlen_k, sink, window)
    return (mask | is_last) & dense_mask(seqlen_q, seqlen_k)


def runs_of(slash_index: Tensor) -> list[tuple[int, int]]:
    """Convert one head's distances to runs ``[lo, hi)``, counted back from ``end_r``.

    1. ``[d, d + 64)`` per distance; touching or overlapping ones merge.
    2. Near to far: the far end moves out to a whole number of blocks. A run that now reaches the
      next one absorbs it, and is rounded again.
    """
    merged: list[tuple[int, int]] = []
    for distance in sorted(slash_index[slash_index >= 0].tolist()):
        lo = merged.pop()[0] if merged and distance <= merged[-1][1] else distance
        merged.append((lo, distance + BLOCK))

    runs: list[tuple[int, int]] = []
    for lo, hi in merged:
        if runs and lo <= runs[-1][1]:
            near_lo, near_hi = runs.pop()
            lo, hi = near_lo, max(near_hi, hi)
        runs.append((lo, lo + -(-(hi - lo) // BLOCK) * BLOCK))
    return runs


def vertical_slash_mask(
    seqlen_q: int, seqlen_k: int, vertical_index: Tensor, slash_index: Tensor
) -> Tensor:
    """Row block ``r`` attends, per run, keys ``[end_r - hi, end_r - lo)``, and the columns.

    Both lists belong to one head, int ``[any]``; ``-1`` fills the end.
    """
    mask = torch.zeros(seqlen_q, seqlen_k, dtype=torch.bool)
    mask[:, vertical_index[vertical_index >= 0].long()] = True
    runs = runs_of(slash_index)
    for block in range(row_blocks(seqlen_q)):
        end = BLOCK * block + BLOCK + seqlen_k - seqlen_q  # Not clipped at the sequence's end.
        rows = slice(BLOCK * block, BLOCK * block + BLOCK)
        for lo, hi in runs:
            mask[rows, max(0, end - hi) : max(0, end - lo)] = True
    return mask & dense_mask(seqlen_q, seqlen_k)


def block_sparse_mask(seqlen_q: int, seqlen_k: int, block_index: Tensor) -> Tensor:
    """Row block ``r`` attends key blocks ``block_index[r]``; ``[row_blocks, any]``, -1 fills."""
    mask = torch.zeros(seqlen_q, seqlen_k, dtype=torch.bool)
    for block, selected in enumerate(block_index.tolist()):
        rows = slice(BLOCK * block, BLOCK * block + BLOCK)
        for key_block in selected:
            if key_block >= 0:
                mask[rows, BLOCK * key_block : BLOCK * key_block + BLOCK] = True
    return mask & dense_mask(seqlen_q, seqlen_k)


def stack_heads(batch: int, num_heads_q: int, mask_of: Callable[[int, int], Tensor]) -> Tensor:
    """``mask_of(batch_idx, head)`` of every head, ``[batch, num_heads_q, seqlen_q, seqlen_k]``."""
    heads = itertools.product(range(batch), range(num_heads_q))
    return torch.stack([mask_of(b, h) for b, h in heads]).unflatten(0, (batch, num_heads_q))


def vertical_slash_masks(
    seqlen_q: int, seqlen_k: int, vertical_index: Tensor, slash_index: Tensor
) -> Tensor:
    """Convert lists of all heads, ``[batch, num_heads_q, any]``, to their masks."""
    vertical, slash = vertical_index.cpu(), slash_index.cpu()
    return stack_heads(
        *vertical.shape[:2],
        lambda b, h: vertical_slash_mask(seqlen_q, seqlen_k, vertical[b, h], slash[b, h]),
    )


def block_sparse_masks(seqlen_q: int, seqlen_k: int, block_index: Tensor) -> Tensor:
    """Convert lists of all heads, ``[batch, num_heads_q, row_blocks, any]``, to their masks."""
    blocks = block_index.cpu()
    return stack_heads(
        *blocks.shape[:2], lambda b, h: block_sparse_mask(seqlen_q, seqlen_k, blocks[b, h])
    )


# ---- Stage 3: attention --------------------------------------------------------------------------


def repeat_kv(x: Tensor, num_heads_q: int) -> Tensor:
    """``[batch, seqlen, num_heads_kv, head_dim]`` -> ``[batch, num_heads_q, seqlen, head_dim]``.

    Query head ``h`` reads KV head ``h // (num_heads_q // num_heads_kv)``.
    """
    return x.double().transpose(1, 2).repeat_interleave(num_heads_q // x.shape[2], dim=1)


def scale_or_default(q: Tensor, softmax_scale: float | None) -> float:
    return q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale


def scores_float64(q: Tensor, k: Tensor, softmax_scale: float | None = None) -> Tensor:
    """``scale * q k^T``, ``[batch, num_heads_q, seqlen_q, seqlen_k]``, not masked."""
    scale = scale_or_default(q, softmax_scale)
    return scale * (q.double().transpose(1, 2) @ repeat_kv(k, q.shape[2]).mT)


def masked_softmax(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax over the attended keys, and its lse; 0 and -inf for a row that attends nothing."""
    scores = scores.masked_fill(~mask, -torch.inf)
    lse = scores.logsumexp(dim=-1)
    return (scores - lse[..., None]).exp().masked_fill(~mask, 0.0), lse


def attention_float64(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softmax_scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Return out, shaped like q but as wide as v, and lse ``[batch, num_heads_q, seqlen_q]``."""
    p, lse = masked_softmax(scores_float64(q, k, softmax_scale), mask)
    return (p @ repeat_kv(v, q.shape[2])).transpose(1, 2), lse


def merge_float64(
    out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Attention over the union of two disjoint key sets, from the attention over each."""
    lse = torch.logaddexp(lse_a.double(), lse_b.double())
    out = torch.zeros(out_a.shape, dtype=torch.float64)
    for out_part, lse_part in ((out_a, lse_a), (out_b, lse_b)):
        share = (lse_part.double() - lse).exp().mT[..., None]
        # A part with lse = -inf attended nothing; its out is ignored, whatever it holds.
        out += torch.where(lse_part.mT[..., None] == -torch.inf, 0.0, out_part.double() * share)
    return out, lse


# ---- Stage 1: estimate ---------------------------------------------------------------------------


def select(score: Tensor, size: int, forced: Tensor, mass: float = 1.0) -> Tensor:
    """Select indices from one score vector, ascending, ``[size]``; -1 fills the end.

    Forced indices come first and count towards ``size``, then come the largest scores. Among
    equals, forced ones included, the smaller index wins. ``mass`` below 1 stops, after the forced
    ones, as soon as the kept scores sum to that share of the total. A score of -inf is never kept.
    """
    scores, is_forced = score.tolist(), forced.tolist()
    allowed = [j for j, s in enumerate(scores) if s > -torch.inf]
    order = sorted(allowed, key=lambda j: (-torch.inf if is_forced[j] else -scores[j], j))[:size]
    if mass < 1.0:
        wanted = mass * sum(scores[j] for j in allowed)
        kept = sum(is_forced[j] for j in order)
        while kept < len(order) and sum(scores[j] for j in order[:kept]) < wanted:
            kept += 1
        order = order[:kept]
    return torch.tensor(sorted(order) + [-1] * (size - len(order)), dtype=torch.int32)


@dataclass(frozen=True)
class VerticalSlashEstimate:
    vertical_score: Tensor  # Mass per key column.
    slash_score: Tensor  # [batch, num_heads_q, seqlen_k]: mass per distance.
    vertical_index: Tensor  # [batch, num_heads_q, clamped vertical_size], int32, ascending.
    slash_index: Tensor  # [batch, num_heads_q, clamped slash_size], int32, ascending.


def estimate_vs(
    q: Tensor,
    k: Tensor,
    vertical_size: int,
    slash_size: int,
    *,
    softmax_scale: float | None = None,
    last_q: int = 64,
    sink: int = 30,
    local: int = 100,
    vertical_p: float = 1.0,
    slash_p: float = 1.0,
) -> VerticalSlashEstimate:
    """Find the columns and distances that the last ``last_q`` rows attend most."""
    batch, seqlen_q, num_heads_q, _ = q.shape
    seqlen_k = k.shape[1]
    n = min(last_q, seqlen_q)
    mask = dense_mask(n, seqlen_k)  # The positions of the last n rows.
    p, _ = masked_softmax(scores_float64(q[:, seqlen_q - n :], k, softmax_scale), mask)
    p = torch.where(p.isfinite().all(dim=-1, keepdim=True), p, 0.0)

    vertical_score = p.sum(dim=2)
    slash_score = torch.zeros_like(vertical_score)
    for row, position in enumerate(positions(n, seqlen_k).tolist()):
        # Distances 0..p_i of this row correspond to keys p_i..0.
        slash_score[..., : position + 1] += p[..., row, : position + 1].flip(-1)

    def select_heads(score: Tensor, size: int, num_forced: int, mass: float) -> Tensor:
        size = min(seqlen_k, max(size, num_forced))
        forced = torch.arange(seqlen_k) < num_forced
        rows = [select(head, size, forced, mass) for head in score.flatten(0, 1)]
        return torch.stack(rows).unflatten(0, (batch, num_heads_q))

    return VerticalSlashEstimate(
        vertical_score,
        slash_score,
        select_heads(vertical_score, vertical_size, sink, vertical_p),
        select_heads(slash_score, slash_size, local, slash_p),
    )


@dataclass(frozen=True)
class BlockSparseEstimate:
    score: Tensor  # [batch, num_heads_q, row_blocks, key_blocks]; -inf where not allowed.
    forced: Tensor  # [row_blocks, key_blocks], bool.
    block_index: Tensor  # [batch, num_heads_q, row_blocks, top_k], int32, ascending, -1 fills.


def block_means(x: Tensor) -> Tensor:
    """Mean of every 64 rows, and of the rest; ``[batch, heads, blocks, head_dim]``."""
    return torch.stack([block.double().mean(dim=1) for block in x.split(BLOCK, dim=1)], dim=2)


def estimate_blocks(
    q: Tensor,
    k: Tensor,
    top_k: int,
    *,
    softmax_scale: float | None = None,
    top_p: float = 1.0,
) -> BlockSparseEstimate:
    """Find the key blocks whose mean has the largest product with the row block's mean."""
    seqlen_q, seqlen_k, num_heads_q = q.shape[1], k.shape[1], q.shape[2]
    mean_k = block_means(k).repeat_interleave(num_heads_q // k.shape[2], dim=1)
    score = block_means(q) @ mean_k.mT

    first_key = BLOCK * torch.arange(score.shape[-1])
    end = BLOCK * torch.arange(score.shape[-2])[:, None] + BLOCK + seqlen_k - seqlen_q
    last_position = (end - 1).clamp(max=seqlen_k - 1)
    allowed = first_key <= last_position
    diagonal = (first_key < end) & (first_key + BLOCK > end - BLOCK)
    forced = allowed & (diagonal | (first_key == 0))
    score = score.masked_fill(~allowed, -torch.inf)

    def select_row(head: Tensor, row: int) -> Tensor:
        if top_p == 1.0:
            return select(head[row], top_k, forced[row])
        share = (scale_or_default(q, softmax_scale) * head[row]).softmax(dim=-1)
        return select(share.masked_fill(~allowed[row], -torch.inf), top_k, forced[row], top_p)

    rows = [select_row(head, r) for head in score.flatten(0, 1) for r in range(score.shape[2])]
    return BlockSparseEstimate(score, forced, torch.stack(rows).unflatten(0, score.shape[:3]))


# ---- How far a backend may be from the above -----------------------------------------------------

UNIT_ROUNDOFF_FP32 = 2.0**-24


def unit_roundoff(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding to nearest: half of ``finfo.eps``."""
    return torch.finfo(dtype).eps / 2


def fp32_sum_error(num_terms: Tensor | int) -> Tensor:
    """Relative error of an fp32 sum of n terms, as a share of the sum of magnitudes.

    Each of n roundings is an independent error with standard deviation at most u / sqrt(3) of the
    partial sum. 2 sqrt(n) u is beyond three standard deviations even if every partial sum is as
    large as the sum of magnitudes, and far beyond for terms of mixed sign.
    """
    return 2 * torch.as_tensor(num_terms, dtype=torch.float64).sqrt() * UNIT_ROUNDOFF_FP32


def probability_error(
    q: Tensor, k: Tensor, mask: Tensor, softmax_scale: float | None = None
) -> Tensor:
    """Relative error of a row's probabilities computed in fp32, ``[batch, num_heads_q, seqlen_q]``.

    A logit of magnitude at most L = scale * sum_d |q_d k_d| has the error of a sum of head_dim
    products, and four roundings: scale * log2(e), its product, the maximum, the exponent's
    fraction. exp turns that into a relative error and adds its own: 2^-22, or 2^-17 where 16 bits
    are stored, which is the 1e-5 that lse allows. Numerator and denominator both have it.
    """
    magnitude = scores_float64(q.abs(), k.abs(), abs(scale_or_default(q, softmax_scale)))
    largest = magnitude.masked_fill(~mask, 0.0).amax(dim=-1)
    logit_error = (fp32_sum_error(q.shape[-1]) + 4 * UNIT_ROUNDOFF_FP32) * largest
    exp_error = 2.0**-22 if q.dtype == torch.float32 else 2.0**-17
    return 2 * (logit_error + exp_error)


def attention_and_bound(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, softmax_scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return out, lse, and the bound of out's error, for each element.

    The bound is a share of ``sum_j p_j |v_j|``. p_j and out are rounded to the dtype: 2 u, which is
    nearly the whole bound where 16 bits are stored. The fp32 arithmetic in between adds the error
    of the probabilities and of two sums over the keys, row_sum and P V; for float32 this is the
    rest.
    """
    v_and_magnitude = torch.cat([v, v.abs()], dim=-1)
    out_and_magnitude, lse = attention_float64(q, k, v_and_magnitude, mask, softmax_scale)
    out, magnitude = out_and_magnitude.chunk(2, dim=-1)
    share = (
        2 * unit_roundoff(q.dtype)
        + probability_error(q, k, mask, softmax_scale)
        + 2 * fp32_sum_error(mask.sum(dim=-1))
    )
    # Below the smallest normal number, rounding to the dtype has an absolute error.
    underflow = torch.finfo(q.dtype).smallest_normal * unit_roundoff(q.dtype)
    return out, lse, share.mT[..., None] * magnitude + underflow


def assert_within(got: Tensor, want: Tensor, bound: Tensor, what: str = "out") -> None:
    """Check that non-finite values agree in place and value, and the rest within ``bound``."""
    got, want = got.double(), want.double()
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, want {tuple(want.shape)}"
    finite = want.isfinite()
    wrong = torch.where(finite, ~((got - want).abs() <= bound), ~got.isclose(want, equal_nan=True))
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        bound = bound.expand_as(want)
        ratio = ((got - want).abs() / bound)[wrong].nan_to_num(torch.inf).max().item()
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {wrong.numel()} values are off, by up to {ratio:.3g} "
            f"times the bound; first at {at}: got {got[at].item():.9g}, "
            f"want {want[at].item():.9g} within {bound[at].item():.3g}"
        )


def assert_lse_close(got: Tensor, want: Tensor, what: str = "lse") -> None:
    """Check that lse agrees within 1e-5, relative or absolute."""
    assert got.dtype == torch.float32
    assert_within(got, want, 1e-5 * want.abs().nan_to_num(1.0, posinf=1.0).clamp(min=1.0), what)


def assert_attention(
    got: tuple[Tensor, Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    softmax_scale: float | None = None,
) -> None:
    """Check that ``got``, an (out, lse) of any backend, is attention under ``mask``."""
    out, lse = got[0].cpu(), got[1].cpu()
    q, k, v = q.cpu(), k.cpu(), v.cpu()
    assert out.dtype == q.dtype
    want_out, want_lse, bound = attention_and_bound(q, k, v, mask, softmax_scale)
    assert_lse_close(lse, want_lse)
    assert_within(out, want_out, bound)
