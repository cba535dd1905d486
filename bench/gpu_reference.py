# SPDX-License-Identifier: Apache-2.0
"""Checks before timing: what a contender selects, against float64 scores of a few heads.

A selection is right if no entry left out has a larger score than one that was chosen, by more than
rounding may move either. Not a test: what must hold for every input is in tests/python.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.inputs import BLOCK, runs_of

LAST_Q, SINK, LOCAL = 64, 30, 100
# float32 sums of products, exponentials and 64 probabilities: a few 1e-5 at logits of 20.
SCORE_ERROR = 1e-3
# Share of the largest possible score sum; for who rounds scores to 16 bits before the softmax.
ROUNDED_MASS = 0.95


def sampled_heads(heads: int) -> list[int]:
    return sorted({0, heads // 2 + 1, heads - 1} & set(range(heads)))


def vertical_slash_scores(q: Tensor, k: Tensor, head: int) -> tuple[Tensor, Tensor]:
    """Column and distance scores of one head of batch 0, float64 ``[seqlen]``."""
    seqlen, group = k.shape[1], q.shape[2] // k.shape[2]
    last = min(LAST_Q, q.shape[1])
    scores = q[0, -last:, head].double() @ k[0, :, head // group].double().T
    scores /= math.sqrt(q.shape[3])
    position = torch.arange(seqlen - last, seqlen, device=q.device)
    scores.masked_fill_(position[:, None] < torch.arange(seqlen, device=q.device), -torch.inf)
    p = scores.softmax(dim=-1)
    slash = torch.zeros(seqlen, dtype=torch.float64, device=q.device)
    for row in range(last):  # Distances of row m count down from its position to 0.
        visible = seqlen - last + row + 1
        slash[:visible] += p[row, :visible].flip(0)
    return p.sum(dim=0), slash


def require(condition: bool, message: str) -> None:
    if not condition:
        raise RuntimeError(message)


def check_selection(name: str, index: Tensor, score: Tensor, num_forced: int) -> None:
    """``index``: one head's list without fill. The first ``num_forced`` entries must be in it."""
    kept = index.long()
    require(bool((kept.diff() > 0).all()), f"{name}: not ascending")
    require(int(kept[0]) >= 0 and int(kept[-1]) < len(score), f"{name}: out of range")
    is_kept = torch.zeros_like(score, dtype=torch.bool).index_fill_(0, kept, True)
    require(bool(is_kept[:num_forced].all()), f"{name}: forced entries are missing")
    if bool(is_kept.all()) or len(kept) == num_forced:
        return
    is_kept[:num_forced] = True
    chosen = score[kept[kept >= num_forced]].min().item()
    left = score[~is_kept].max().item()
    require(
        chosen >= left * (1 - 2 * SCORE_ERROR),
        f"{name}: kept a score of {chosen:.6g} and left one of {left:.6g}",
    )


def check_mass(name: str, index: Tensor, score: Tensor, num_forced: int) -> None:
    """The selection's score sum, against that of the best of its size with the forced entries."""
    best = score[:num_forced].sum() + score[num_forced:].topk(len(index) - num_forced).values.sum()
    share = (score[index.long()].sum() / best).item()
    require(share >= ROUNDED_MASS, f"{name}: selected {share:.4f} of the possible score sum")


def check_vertical_slash(q: Tensor, k: Tensor, columns: Tensor, distances: Tensor) -> None:
    for head in sampled_heads(q.shape[2]):
        vertical, slash = vertical_slash_scores(q, k, head)
        check_selection(f"columns of head {head}", columns[0, head], vertical, SINK)
        check_selection(f"distances of head {head}", distances[0, head], slash, LOCAL)


def check_plan(distances: Tensor, runs: Tensor, run_count: Tensor) -> None:
    for head in sampled_heads(distances.shape[1]):
        got = [tuple(run) for run in runs[0, head, : int(run_count[0, head])].tolist()]
        want = runs_of(distances[0, head].tolist())
        require(got == want, f"runs of head {head}: got {len(got)}, want {len(want)} others")


def check_blocks(q: Tensor, k: Tensor, block_index: Tensor) -> None:
    """A few row blocks of a few heads. Pooled rows may be rounded to the dtype."""
    seqlen, group = k.shape[1], q.shape[2] // k.shape[2]
    eps = torch.finfo(q.dtype).eps
    for head in sampled_heads(q.shape[2]):
        pooled_k = _pooled(k[0, :, head // group])
        for row_block in sorted({0, math.ceil(seqlen / BLOCK) // 2, math.ceil(seqlen / BLOCK) - 1}):
            pooled_q = q[0, BLOCK * row_block :][:BLOCK, head].double().mean(dim=0)
            name = f"blocks of head {head}, row block {row_block}"
            score = pooled_k[: row_block + 1] @ pooled_q
            error = 2 * eps * (pooled_k[: row_block + 1].abs() @ pooled_q.abs())
            index = block_index[0, head, row_block]
            kept = index[index >= 0].long()
            size = min(block_index.shape[-1], row_block + 1)
            require(len(kept) == size, f"{name}: {len(kept)} of {size}")
            require(bool((kept.diff() > 0).all()), f"{name}: not ascending")
            require({0, row_block} <= set(kept.tolist()), f"{name}: forced blocks are missing")
            free = torch.ones_like(score, dtype=torch.bool)
            free[[0, row_block]] = False
            is_kept = torch.zeros_like(free).index_fill_(0, kept, True)
            if bool((is_kept & free).any()) and bool((~is_kept).any()):
                chosen = (score + error)[is_kept & free].min()
                left = (score - error)[~is_kept].max()
                require(bool(chosen >= left), f"{name}: kept {chosen:.6g}, left {left:.6g}")


def _pooled(x: Tensor) -> Tensor:
    """Means of 64 rows, and of the rest, of ``[seqlen, head_dim]``."""
    whole = len(x) // BLOCK * BLOCK
    means = x[:whole].double().view(-1, BLOCK, x.shape[1]).mean(dim=1)
    return means if whole == len(x) else torch.cat([means, x[whole:].double().mean(0, True)])
