# SPDX-License-Identifier: Apache-2.0
"""Checks before timing: sampled rows of attention, minference's or a peer's, against float64.

Which keys a row attends is written anew here, row by row, so that a million keys need no square
mask. Not a test: what must hold for every input is in tests/python.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.gpu_reference import require, sampled_heads
from bench.inputs import BLOCK, runs_of

# Positions of rows, and a head -> bool [rows, seqlen_k].
Keys = Callable[[Tensor, int], Tensor]


def causal(position: Tensor, seqlen_k: int) -> Tensor:
    return torch.arange(seqlen_k, device=position.device) <= position[:, None]


# ---- Patterns ------------------------------------------------------------------------------------
# For calls whose first row stands at a multiple of 64.


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
        device = position.device
        key = torch.arange(seqlen_k, device=device)
        listed = distances[0, head]
        runs = torch.tensor(runs_of(listed[listed >= 0].tolist()), device=device).view(-1, 2)
        # How far a key lies before the end of its row block, from 1: run [lo, hi) has lo + 1 to hi.
        end = (position // BLOCK + 1) * BLOCK
        back = end[:, None] - 1 - key
        mask = torch.zeros(back.shape, dtype=torch.bool, device=device)
        if len(runs) > 0:
            near = runs[:, 0].contiguous()
            run = torch.searchsorted(near, back, right=True) - 1
            mask = (run >= 0) & (back < runs[:, 1][run.clamp(min=0)])
        column = columns[0, head]
        mask[:, column[column >= 0].long()] = True
        return mask & causal(position, seqlen_k)

    return keys


def blocks(seqlen_k: int, block_index: Tensor) -> Keys:
    """``[1, heads, row_blocks, n]`` key blocks, -1 fills; of a square call."""

    def keys(position: Tensor, head: int) -> Tensor:
        listed = block_index[0, head, position // BLOCK].long()
        count = math.ceil(seqlen_k / BLOCK)
        is_listed = torch.zeros((len(position), count + 1), dtype=torch.bool, device=listed.device)
        is_listed.scatter_(1, torch.where(listed < 0, count, listed), True)
        mask = is_listed[:, :count].repeat_interleave(BLOCK, dim=1)[:, :seqlen_k]
        return mask & causal(position, seqlen_k)

    return keys


# ---- Attention -----------------------------------------------------------------------------------


@dataclass
class Checked:
    """Inputs, ``[1, seqlen, heads, head_dim]``, and the keys that attention of them must attend."""

    q: Tensor
    k: Tensor
    v: Tensor
    keys: Keys
    rounds_q: bool = False  # Whether q times the scale is rounded to the dtype, as some peers do.

    def out(self, name: str, out: Callable[[int], Tensor]) -> None:
        """``out(head)`` is ``[seqlen_q, head_dim]``."""
        self._heads(name, out, lse=None)

    def out_and_lse(self, name: str, result: tuple[Tensor, Tensor]) -> None:
        out, lse = result
        self._heads(name, lambda head: out[0, :, head], lambda head: lse[0, head])

    def _heads(
        self, name: str, out: Callable[[int], Tensor], lse: Callable[[int], Tensor] | None
    ) -> None:
        for head in sampled_heads(self.q.shape[2]):
            rows = self._rows()
            want, want_lse, bound = self._attention(rows, head)
            where = f"{name}, head {head}"
            _require_close(f"{where}: out", out(head)[rows], want, bound)
            if lse is not None:
                allowed = 1e-5 * want_lse.abs().clamp(min=1)
                _require_close(f"{where}: lse", lse(head)[rows], want_lse, allowed)

    def _rows(self) -> Tensor:
        """First and last ones, ends of blocks and of tiles, and some that nothing distinguishes."""
        count = self.q.shape[1]
        middle = count // 2 // BLOCK * BLOCK
        rows = {0, 1, 63, 64, 127, 128, middle - 1, middle, middle + 37, 5 * count // 7}
        rows |= {count - 130, count - 64, count - 2, count - 1}
        return torch.tensor(sorted(rows & set(range(count))), device=self.q.device)

    def _attention(self, rows: Tensor, head: int) -> tuple[Tensor, Tensor, Tensor]:
        """out, lse and how far an element of out may be off."""
        seqlen_k, group = self.k.shape[1], self.q.shape[2] // self.k.shape[2]
        q, k, v = (
            x.double()
            for x in (
                self.q[0, rows, head],
                self.k[0, :, head // group],
                self.v[0, :, head // group],
            )
        )
        mask = self.keys(rows + seqlen_k - self.q.shape[1], head)
        scale = q.shape[1] ** -0.5
        logits = (scale * (q @ k.T)).masked_fill_(~mask, -torch.inf)
        lse = logits.logsumexp(dim=-1)
        p = (logits - lse[:, None]).exp()
        # Roundings of p and of out to the dtype; twice that, for the arithmetic in float32.
        eps = torch.finfo(self.q.dtype).eps
        share = torch.full_like(lse, 2 * eps)
        if self.rounds_q:
            largest = (scale * (q.abs() @ k.abs().T)).masked_fill_(~mask, 0).amax(dim=-1)
            share += 2 * torch.expm1(eps / 2 * largest)
        return p @ v, lse, share[:, None] * (p @ v.abs()) + 1e-7


def _require_close(name: str, got: Tensor, want: Tensor, bound: Tensor) -> None:
    error = ((got.double() - want).abs() / bound).max().item()
    require(error <= 1, f"{name} is {error:.3g} times as far off as rounding allows")  # NaN too.
