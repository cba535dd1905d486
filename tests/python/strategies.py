# SPDX-License-Identifier: Apache-2.0
"""Test inputs, drawn or seeded: tensors in every memory layout, index lists, patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import reference
import torch
from hypothesis import strategies as st
from minference import AShape, BlockSparse, Dense, TriShape, VerticalSlash
from reference import row_blocks
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# (seqlen_q, seqlen_k). A kernel tile may hold 256 keys, a row block holds 64 rows.
SHAPES = {
    "one_key": (1, 1),
    "one_row": (1, 200),
    "block_minus_1": (63, 63),
    "block": (64, 64),
    "block_plus_1": (65, 65),
    "few_rows": (7, 321),
    "chunk": (64, 256),
    "ragged_chunk": (70, 333),
    "ragged": (200, 200),
    "tiles_plus_1": (129, 513),
}

LAYOUTS = ["contiguous", "heads_first", "padded", "unaligned", "shared_heads", "shared_batch"]


def make_tensor(
    batch: int,
    seqlen: int,
    heads: int,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    device: str = "cpu",
) -> Tensor:
    """Draw normal ``[batch, seqlen, heads, head_dim]`` values from torch's global generator."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape).to(device, dtype)

    match layout:
        case "contiguous":
            return randn(batch, seqlen, heads, head_dim)
        case "heads_first":
            return randn(batch, heads, seqlen, head_dim).transpose(1, 2)
        case "padded":  # Like a packed QKV projection: rows are further apart than they are long.
            return randn(batch, seqlen + 2, heads + 1, head_dim + 16)[:, 2:, 1:, 8 : 8 + head_dim]
        case "unaligned":  # No row is aligned to more than one element.
            return randn(batch, seqlen, heads, head_dim + 1)[..., 1:]
        case "shared_heads":
            return randn(batch, seqlen, 1, head_dim).expand(-1, -1, heads, -1)
        case "shared_batch":
            return randn(1, seqlen, heads, head_dim).expand(batch, -1, -1, -1)
    raise ValueError(layout)


def make_qkv(
    batch: int = 1,
    seqlen_q: int = 64,
    seqlen_k: int = 64,
    num_heads: tuple[int, int] = (4, 2),
    head_dim: int = 64,
    *,
    head_dim_v: int | None = None,
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    kv_layout: str | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw q, k and v; ``head_dim_v`` defaults to q's head_dim."""
    torch.manual_seed(seed)
    kv_layout = layout if kv_layout is None else kv_layout
    q = make_tensor(
        batch, seqlen_q, num_heads[0], head_dim, dtype=dtype, layout=layout, device=device
    )
    k, v = (
        make_tensor(
            batch, seqlen_k, num_heads[1], dim, dtype=dtype, layout=kv_layout, device=device
        )
        for dim in (head_dim, head_dim if head_dim_v is None else head_dim_v)
    )
    return q, k, v


# ---- Index lists ---------------------------------------------------------------------------------


def index_list(heads: list[list[int]], batch: int, num_heads_q: int) -> Tensor:
    """Make int32 ``[batch, num_heads_q, longest]`` from the heads' lists, sorted; -1 fills."""
    longest = max(map(len, heads), default=0)
    rows = [sorted(head) + [-1] * (longest - len(head)) for head in heads]
    return torch.tensor(rows, dtype=torch.int32).reshape(batch, num_heads_q, longest)


def random_index(batch: int, num_heads_q: int, limit: int, most: int) -> Tensor:
    """Draw up to ``most`` distinct indices below ``limit`` per head; some heads may have none."""
    lengths = torch.randint(0, min(most, limit) + 1, (batch * num_heads_q,)).tolist()
    return index_list(
        [torch.randperm(limit)[:length].tolist() for length in lengths], batch, num_heads_q
    )


def random_block_index(
    batch: int, num_heads_q: int, seqlen_q: int, seqlen_k: int, density: float = 0.5
) -> Tensor:
    """Draw a share of all key blocks, visible or not, for each row block of each head."""
    blocks = row_blocks(seqlen_k)
    kept = torch.rand(batch, num_heads_q, row_blocks(seqlen_q), blocks) < density
    index = torch.where(kept, torch.arange(blocks), blocks).sort(dim=-1).values
    return torch.where(index == blocks, -1, index).int()


@st.composite
def distances(draw: st.DrawFn, seqlen_k: int) -> list[int]:
    """Draw distances whose 64-wide spans overlap, touch, leave a gap of one, or reach the end."""
    gap = st.sampled_from([1, 2, 31, 63, 64, 65, 66, 100, 127, 128, 129, 130, 192, 250])
    found = [draw(st.integers(0, min(80, seqlen_k - 1)))]
    while (found[-1] + (step := draw(gap))) < seqlen_k and len(found) < 12:
        found.append(found[-1] + step)
    return draw(st.sampled_from([found, [], [seqlen_k - 1]])) if draw(st.booleans()) else found


@st.composite
def columns(draw: st.DrawFn, seqlen_k: int) -> list[int]:
    kind = draw(st.sampled_from(["few", "all", "none", "span"]))
    if kind == "few":
        return sorted(draw(st.sets(st.integers(0, seqlen_k - 1), max_size=70)))
    if kind == "span":
        begin = draw(st.integers(0, seqlen_k - 1))
        return list(range(begin, min(seqlen_k, begin + draw(st.integers(1, 130)))))
    return list(range(seqlen_k)) if kind == "all" else []


@st.composite
def vertical_slash_indices(
    draw: st.DrawFn, batch: int, num_heads_q: int, seqlen_k: int
) -> tuple[Tensor, Tensor]:
    """Draw ``(vertical_index, slash_index)``, with a separate list for every head."""

    def lists(strategy: st.SearchStrategy[list[int]]) -> Tensor:
        heads = [draw(strategy) for _ in range(batch * num_heads_q)]
        return index_list(heads, batch, num_heads_q)

    return lists(columns(seqlen_k)), lists(distances(seqlen_k))


# ---- Whole calls ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """A call without its patterns. ``tensors()`` gives the same values each time."""

    batch: int
    seqlen_q: int
    seqlen_k: int
    num_heads: tuple[int, int]  # query heads, KV heads
    head_dim: int
    head_dim_v: int
    dtype: torch.dtype
    layout: str
    kv_layout: str
    seed: int

    @property
    def num_heads_q(self) -> int:
        return self.num_heads[0]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return make_qkv(
            self.batch,
            self.seqlen_q,
            self.seqlen_k,
            self.num_heads,
            self.head_dim,
            head_dim_v=self.head_dim_v,
            dtype=self.dtype,
            layout=self.layout,
            kv_layout=self.kv_layout,
            seed=self.seed,
        )


@st.composite
def problems(draw: st.DrawFn, max_seqlen: int = 260) -> Problem:
    near_block = st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 257])
    seqlen = st.one_of(near_block, st.integers(1, max_seqlen))
    seqlen_q, seqlen_k = sorted((draw(seqlen), draw(seqlen)))
    if draw(st.booleans()):
        seqlen_q = seqlen_k
    num_heads_kv = draw(st.integers(1, 3))
    head_dims = st.one_of(
        st.sampled_from([64, 80, 96, 128]), st.integers(1, 32).map(lambda n: 8 * n)
    )
    head_dim = draw(head_dims)
    return Problem(
        batch=draw(st.integers(1, 2)),
        seqlen_q=seqlen_q,
        seqlen_k=seqlen_k,
        num_heads=(num_heads_kv * draw(st.integers(1, 3)), num_heads_kv),
        head_dim=head_dim,
        head_dim_v=draw(st.one_of(st.just(head_dim), head_dims)),
        dtype=draw(st.sampled_from(list(DTYPES.values()))),
        layout=draw(st.sampled_from(LAYOUTS)),
        kv_layout=draw(st.sampled_from(LAYOUTS)),
        seed=draw(st.integers(0, 2**31)),
    )


Pattern = Dense | AShape | TriShape | VerticalSlash | BlockSparse

# (q, k, v) -> (out, lse), with everything else fixed.
Attend = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def static_mask(pattern: Dense | AShape | TriShape, seqlen_q: int, seqlen_k: int) -> Tensor:
    """The mask of a pattern that needs no index lists."""
    match pattern:
        case Dense():
            return reference.dense_mask(seqlen_q, seqlen_k)
        case AShape(sink, window):
            return reference.a_shape_mask(seqlen_q, seqlen_k, sink, window)
        case TriShape(sink, window, last):
            return reference.tri_shape_mask(seqlen_q, seqlen_k, sink, window, last)


def patterns(seqlen_q: int, seqlen_k: int) -> st.SearchStrategy[Pattern]:
    """Draw one head's pattern, with sizes from nothing to more than there is."""
    tokens = st.integers(0, seqlen_k + 70)
    rows = st.integers(0, seqlen_q + 70)
    return st.one_of(
        st.just(Dense()),
        st.builds(AShape, tokens, tokens),
        st.builds(TriShape, tokens, tokens, rows),
        st.builds(VerticalSlash, tokens, tokens),
        st.builds(BlockSparse, st.integers(1, row_blocks(seqlen_k) + 3)),
    )


@st.composite
def block_indices(draw: st.DrawFn, problem: Problem) -> Tensor:
    """Draw any set of key blocks per row block: none, some or all; visible or not."""
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    return random_block_index(
        problem.batch, problem.num_heads_q, problem.seqlen_q, problem.seqlen_k, density
    )
