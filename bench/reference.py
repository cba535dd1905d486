# SPDX-License-Identifier: Apache-2.0
"""Checks before timing: what a contender selects and attends, against float64, on samples.

The keys that a row attends are defined anew here, row by row, so that a million keys need no square
mask. This is not a test: tests/python checks what must hold for every input.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bench.inputs import BLOCK, Qkv, runs_of

LAST_Q, SINK, LOCAL = 64, 30, 100
# float32 sums of products, exponentials and 64 probabilities: a few 1e-5 at logits of 20.
SCORE_ERROR = 1e-3
# Share of the largest possible score sum, for peers that round scores to 16 bits before the
# softmax.
ROUNDED_MASS = 0.95

# Maps positions of rows and a head to bool [rows, seqlen_k].
Keys = Callable[[Tensor, int], Tensor]
# Maps a head of batch 0 to its result [seqlen_q, head_dim].
Head = Callable[[int], Tensor]


def require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def sampled_heads(heads: int) -> list[int]:
    return sorted({0, heads // 2 + 1, heads - 1} & set(range(heads)))


# ---- Which keys a row attends: for calls whose first row is at a multiple of 64 ------------------


def causal(position: Tensor, seqlen_k: int) -> Tensor:
    return torch.arange(seqlen_k, device=position.device) <= position[:, None]


def dense(seqlen_k: int) -> Keys:
    return lambda position, _head: causal(position, seqlen_k)


def a_shape(seqlen_k: int, sink: int, window: int) -> Keys:
    def keys(position: Tensor, _head: int) -> Tensor:
        key = torch.arange(seqlen_k, device=position.device)
        near = position[:, None] - key < window
        return (near | (key < sink)) & causal(position, seqlen_k)

    return keys


def vertical_slash(seqlen_k: int, columns: Tensor, distances: Tensor) -> Keys:
    """``[1, heads, n]`` columns and distances, -1 fills."""

    def keys(position: Tensor, head: int) -> Tensor:
        listed = distances[0, head]
        runs = torch.tensor(runs_of(listed[listed >= 0].tolist()), device=position.device)
        # Distance of a key from the end of its row block, from 1: run [lo, hi) has lo + 1 to hi.
        end = (position // BLOCK + 1) * BLOCK
        back = end[:, None] - 1 - torch.arange(seqlen_k, device=position.device)
        mask = torch.zeros_like(back, dtype=torch.bool)
        if len(runs) > 0:
            run = torch.searchsorted(runs[:, 0].contiguous(), back, right=True) - 1
            mask = (run >= 0) & (back < runs[:, 1][run.clamp(min=0)])
        column = columns[0, head]
        mask[:, column[column >= 0].long()] = True
        return mask & causal(position, seqlen_k)

    return keys


def blocks(seqlen_k: int, block_index: Tensor) -> Keys:
    """``[1, heads, row_blocks, n]`` key blocks of a square call, -1 fills."""

    def keys(position: Tensor, head: int) -> Tensor:
        listed = block_index[0, head, position // BLOCK].long()
        count = math.ceil(seqlen_k / BLOCK)
        is_listed = torch.zeros((len(position), count + 1), dtype=torch.bool, device=listed.device)
        is_listed.scatter_(1, torch.where(listed < 0, count, listed), True)
        mask = is_listed[:, :count].repeat_interleave(BLOCK, dim=1)[:, :seqlen_k]
        return mask & causal(position, seqlen_k)

    return keys


# ---- Attention -----------------------------------------------------------------------------------


def check_attention(
    name: str, qkv: Qkv, keys: Keys, out: Head, lse: Head | None = None, *, rounds_q: bool = False
) -> None:
    """Check sampled rows and heads. ``rounds_q``: q times the scale is rounded to the dtype."""
    count = qkv[0].shape[1]
    middle = count // 2 // BLOCK * BLOCK
    # First and last rows, ends of blocks and of tiles, and some ordinary ones.
    chosen = {0, 1, 63, 64, 127, 128, middle - 1, middle, middle + 37, 5 * count // 7}
    chosen |= {count - 130, count - 64, count - 2, count - 1}
    rows = torch.tensor(sorted(chosen & set(range(count))), device=qkv[0].device)
    for head in sampled_heads(qkv[0].shape[2]):
        want, want_lse, bound = _attention(qkv, keys, rows, head, rounds_q)
        _require_close(f"{name}, head {head}: out", out(head)[rows], want, bound)
        if lse is not None:
            allowed = 1e-5 * want_lse.abs().clamp(min=1)
            _require_close(f"{name}, head {head}: lse", lse(head)[rows], want_lse, allowed)


def _attention(
    qkv: Qkv, keys: Keys, rows: Tensor, head: int, rounds_q: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """out, lse and the bound of out's error, per element."""
    seqlen_q, seqlen_k = qkv[0].shape[1], qkv[1].shape[1]
    head_kv = head // (qkv[0].shape[2] // qkv[1].shape[2])
    q = qkv[0][0, rows, head].double()
    k, v = (x[0, :, head_kv].double() for x in qkv[1:])
    mask = keys(rows + seqlen_k - seqlen_q, head)
    scale = q.shape[1] ** -0.5
    logits = (scale * (q @ k.T)).masked_fill_(~mask, -torch.inf)
    lse = logits.logsumexp(dim=-1)
    p = (logits - lse[:, None]).exp()
    # p and out are rounded to the dtype; twice that, for the arithmetic in float32.
    eps = torch.finfo(qkv[0].dtype).eps
    share = torch.full_like(lse, 2 * eps)
    if rounds_q:
        largest = (scale * (q.abs() @ k.abs().T)).masked_fill_(~mask, 0).amax(dim=-1)
        share += 2 * torch.expm1(eps / 2 * largest)
    # Without 16-bit roundings, the float32 error of logits dominates.
    least = 1e-5 if qkv[0].dtype is torch.float32 else 1e-7
    return p @ v, lse, share[:, None] * (p @ v.abs()) + least


def _require_close(name: str, got: Tensor, want: Tensor, bound: Tensor) -> None:
    error = ((got.double() - want).abs() / bound).max().item()
    require(error <= 1, f"{name} is {error:.3g} times as far off as rounding allows")  # NaN too.


# ---- Selections: no entry left out scores higher than one chosen, up to rounding -----------------


def vertical_slash_scores(q: Tensor, k: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """Column and distance scores of one head of batch 0, float64 ``[seqlen]``."""
    seqlen, group = k.shape[1], q.shape[2] // k.shape[2]
    last = min(LAST_Q, q.shape[1])
    scores = q[0, -last:, head].double() @ k[0, :, head // group].double().T
    position = torch.arange(seqlen - last, seqlen, device=q.device)
    scores.masked_fill_(~causal(position, seqlen), -torch.inf)
    p = (scores / math.sqrt(q.shape[3])).softmax(dim=-1)
    slash = torch.zeros(seqlen, dtype=torch.float64, device=q.device)
    for row in range(last):  # Distances of row m count down from its position to 0.
        visible = seqlen - last + row + 1
        slash[:visible] += p[row, :visible].flip(0)
    return p.sum(dim=0), slash


def check_selection(name: str, kept: Tensor, score: Tensor, forced: Tensor, error: Tensor) -> None:
    """Check one head's list without fill, which must hold ``forced``. ``error`` is a score's."""
    require(bool((kept.diff() > 0).all()), f"{name}: not ascending")
    require(int(kept[0]) >= 0 and int(kept[-1]) < len(score), f"{name}: out of range")
    is_kept = torch.zeros_like(score, dtype=torch.bool).index_fill_(0, kept.long(), True)
    require(bool(is_kept[forced].all()), f"{name}: forced entries are missing")
    is_free = torch.ones_like(is_kept).index_fill_(0, forced, False)
    if bool((is_kept & is_free).any()) and not bool(is_kept.all()):
        chosen, left = (score + error)[is_kept & is_free].min(), (score - error)[~is_kept].max()
        require(bool(chosen >= left), f"{name}: kept {chosen:.6g}, left {left:.6g}")


def check_mass(name: str, index: Tensor, score: Tensor, num_forced: int) -> None:
    """Compare the selection's score sum with the best of its size with the forced entries."""
    best = score[:num_forced].sum() + score[num_forced:].topk(len(index) - num_forced).values.sum()
    share = (score[index.long()].sum() / best).item()
    require(share >= ROUNDED_MASS, f"{name}: selected {share:.4f} of the possible score sum")


def check_vertical_slash(q: Tensor, k: Tensor, columns: Tensor, distances: Tensor) -> None:
    for head in sampled_heads(q.shape[2]):
        scores = vertical_slash_scores(q, k, head)
        for name, index, score, forced in zip(
            ("columns", "distances"), (columns, distances), scores, (SINK, LOCAL), strict=True
        ):
            first = torch.arange(min(forced, len(score)), device=q.device)
            check_selection(
                f"{name} of head {head}", index[0, head], score, first, SCORE_ERROR * score
            )


def check_plan(distances: Tensor, runs: Tensor, run_count: Tensor) -> None:
    for head in sampled_heads(distances.shape[1]):
        got = [tuple(run) for run in runs[0, head, : int(run_count[0, head])].tolist()]
        want = runs_of(distances[0, head].tolist())
        require(got == want, f"runs of head {head}: got {len(got)}, want {len(want)} others")


def check_blocks(q: Tensor, k: Tensor, block_index: Tensor) -> None:
    """Check a few row blocks of a few heads. Pooled rows may be rounded to the dtype."""
    group, last = q.shape[2] // k.shape[2], math.ceil(k.shape[1] / BLOCK) - 1
    for head in sampled_heads(q.shape[2]):
        parts = k[0, :, head // group].double().split(BLOCK)
        pooled_k = torch.stack([part.mean(dim=0) for part in parts])
        for row_block in sorted({0, last // 2, last}):
            pooled_q = q[0, BLOCK * row_block :][:BLOCK, head].double().mean(dim=0)
            seen = pooled_k[: row_block + 1]
            index = block_index[0, head, row_block]
            kept = index[index >= 0].long()
            name = f"blocks of head {head}, row block {row_block}"
            size = min(block_index.shape[-1], row_block + 1)
            require(len(kept) == size, f"{name}: {len(kept)} of {size}")
            error = 2 * torch.finfo(q.dtype).eps * (seen.abs() @ pooled_q.abs())
            forced = torch.tensor(sorted({0, row_block}), device=q.device)
            check_selection(name, kept, seen @ pooled_q, forced, error)
