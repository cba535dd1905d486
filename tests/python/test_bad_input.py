# SPDX-License-Identifier: Apache-2.0
"""What is refused; the message must say which argument, what was expected, and what was given.

Each case runs twice: through minference, where the exception's type says what kind of error it is,
and through torch.ops, whose stable ABI only has RuntimeError, with the same text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import minference
import minference._C as _C
import minference._library as _library
import pytest
import torch
from conftest import DEVICES
from minference import AShape, BlockSparse, Dense, TriShape, VerticalSlash
from torch import Tensor

needs_cuda = pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")

NAN, INF = float("nan"), float("inf")


class Maker:
    """Makes tensors on one device, in the widest dtype that every backend serves there."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.dtype = torch.float32 if device == "cpu" else torch.bfloat16
        self.q, self.kv = self.tokens(), self.tokens(heads=2)

    def tokens(
        self, seqlen: int = 70, heads: int = 4, head_dim: int = 64, batch: int = 2
    ) -> Tensor:
        return torch.ones(batch, seqlen, heads, head_dim, dtype=self.dtype, device=self.device)

    def message(self, text: str) -> str:
        """``text`` with the names of this device and its dtype filled in."""
        names = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
        here = "cpu" if self.device == "cpu" else "cuda:0"
        return text.replace("DTYPE", names[self.dtype]).replace("DEVICE", here)


@pytest.fixture
def make(device: str) -> Maker:
    return Maker(device)


def lists(*entries: int, batch: int = 2, heads: int = 4) -> Tensor:
    """Valid lists [0, 5] for all heads but the last, which gets ``entries``."""
    good = ([0, 5] + [-1] * len(entries))[: len(entries)]
    index = torch.tensor(good, dtype=torch.int32).repeat(batch, heads, 1)
    index[-1, -1] = torch.tensor(entries, dtype=torch.int32)
    return index


def blocks(*entries: int, batch: int = 2, heads: int = 4, row_blocks: int = 2) -> Tensor:
    """The same for key blocks; the last row block gets the bad list."""
    good = ([0, 1] + [-1] * len(entries))[: len(entries)]
    index = torch.tensor(good, dtype=torch.int32).repeat(batch, heads, row_blocks, 1)
    index[-1, -1, -1] = torch.tensor(entries, dtype=torch.int32)
    return index


def strided(x: Tensor) -> Tensor:
    """The same values, two elements apart."""
    return torch.stack([x, x], dim=-1).flatten(-2)[..., ::2]


Api = ModuleType
CPU = Maker("cpu")
Q, KV = CPU.q, CPU.kv

# Wrong q, k, v are refused alike by every op that takes them: how to make them, the message.
BAD_QKV: dict[str, tuple[Callable[[Maker], tuple[Tensor, Tensor, Tensor]], str]] = {
    "q_rank": (lambda m: (m.q[0], m.kv, m.kv), "q: expected 4 dimensions, got 3"),
    "k_rank": (lambda m: (m.q, m.kv[0], m.kv), "k: expected 4 dimensions, got 3"),
    "v_rank": (lambda m: (m.q, m.kv, m.kv[0]), "v: expected 4 dimensions, got 3"),
    "q_rank_0": (lambda m: (m.q.sum(), m.kv, m.kv), "q: expected .*dimensions, got 0"),
    "q_rank_5": (lambda m: (m.q[None], m.kv, m.kv), "q: expected .*dimensions, got 5"),
    "k_dtype": (
        lambda m: (m.q, m.kv.half(), m.kv),
        "k: expected dtype DTYPE like q, got float16",
    ),
    "v_dtype": (
        lambda m: (m.q, m.kv, m.kv.half()),
        "v: expected dtype DTYPE like q, got float16",
    ),
    "float64": (
        lambda m: (m.q.double(), m.kv.double(), m.kv.double()),
        "q: expected .*float32.*, got .*Double",
    ),
    "int8": (
        lambda m: (m.q.char(), m.kv.char(), m.kv.char()),
        "q: expected .*float32.*, got .*Char",
    ),
    "int32": (
        lambda m: (m.q.int(), m.kv.int(), m.kv.int()),
        "q: expected .*float32.*, got int32",
    ),
    "head_dim_0": (
        lambda m: (m.q[..., :0], m.kv[..., :0], m.kv[..., :0]),
        "q: expected head_dim 8 to 256, got 0",
    ),
    "head_dim_264": (
        lambda m: tuple(m.tokens(head_dim=264) for _ in range(3)),
        "q: expected head_dim 8 to 256, got 264",
    ),
    "k_head_dim": (
        lambda m: (m.q, m.tokens(heads=2, head_dim=72), m.kv),
        r"k: expected shape \[batch, seqlen_k, num_heads_kv, head_dim\] = "
        r"\[2, any, any, 64\], got \[2, 70, 2, 72\]",
    ),
    "v_head_dim_0": (
        lambda m: (m.q, m.kv, m.kv[..., :0]),
        "v: expected head_dim_v 8 to 256, got 0",
    ),
    "v_head_dim_264": (
        lambda m: (m.q, m.kv, m.tokens(heads=2, head_dim=264)),
        "v: expected head_dim_v 8 to 256, got 264",
    ),
    "k_batch": (
        lambda m: (m.q, m.tokens(heads=2, batch=1), m.kv),
        r"k: expected .*\[2, .*, got \[1, ",
    ),
    "v_batch": (
        lambda m: (m.q, m.kv, m.tokens(heads=2, batch=1)),
        r"v: expected shape \[batch, seqlen_k, num_heads_kv, head_dim_v\] = "
        r"\[2, 70, 2, any\], got \[1, 70, 2, 64\]",
    ),
    "v_seqlen": (
        lambda m: (m.q, m.kv, m.tokens(90, heads=2)),
        r"v: expected .*70, .*, got \[2, 90, ",
    ),
    "v_heads": (lambda m: (m.q, m.kv, m.q), r"v: expected .*\[2, 70, 2, .*, got \[2, 70, 4, "),
    "no_q_heads": (
        lambda m: (m.q[:, :, :0], m.kv, m.kv),
        "q: expected at least 1 head, got 0",
    ),
    "no_k_heads": (
        lambda m: (m.q, m.kv[:, :, :0], m.kv[:, :, :0]),
        "k: expected at least 1 head, got 0",
    ),
    "heads_not_divisible": (
        lambda m: (m.q, m.tokens(heads=3), m.tokens(heads=3)),
        "q: expected a multiple of the 3 heads of k, got 4 heads",
    ),
    "seqlen_q_over_seqlen_k": (
        lambda m: (m.tokens(71), m.kv, m.kv),
        "q: expected seqlen_q <= seqlen_k = 70, got 71",
    ),
    "q_stride": (
        lambda m: (strided(m.q), m.kv, m.kv),
        r"q: expected innermost stride 1, got strides \[.*, 2\]",
    ),
    "k_stride": (
        lambda m: (m.q, strided(m.kv), m.kv),
        r"k: expected innermost stride 1, got strides \[.*, 2\]",
    ),
    "v_stride": (
        lambda m: (m.q, m.kv, strided(m.kv)),
        r"v: expected innermost stride 1, got strides \[.*, 2\]",
    ),
    "k_huge": (
        lambda m: (m.q[:1], *[m.q[:1, :1, :1].expand(1, 2**31, 2, -1)] * 2),
        r"k: expected .* in \[0, 1073741824\], got .*2147483648",
    ),
}

OPS: dict[str, Callable[[Api, Tensor, Tensor, Tensor], object]] = {
    "vs_attn": lambda api, q, k, v: api.vs_attn(q, k, v, 40, 110),
    "a_shape_attn": lambda api, q, k, v: api.a_shape_attn(q, k, v, 4, 20),
    "block_sparse_attn": lambda api, q, k, v: api.block_sparse_attn(q, k, v, 4),
    "vs_sparse_attn": lambda api, q, k, v: api.vs_sparse_attn(
        q, k, v, lists(0, 5).to(q.device), lists(0, 5).to(q.device)
    ),
    "block_index_attn": lambda api, q, k, v: api.block_index_attn(
        q, k, v, blocks(0, 1).to(q.device)
    ),
    "estimate_vs": lambda api, q, k, v: api.estimate_vs(q, k, 40, 110),
    "estimate_blocks": lambda api, q, k, v: api.estimate_blocks(q, k, 4),
}


def assert_refused(call: Callable[[Api], object], message: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=message) as through_python:
        call(minference)
    assert type(through_python.value) is error
    with pytest.raises(RuntimeError, match=message) as through_torch:
        call(torch.ops.minference)
    assert type(through_torch.value) is RuntimeError


@pytest.mark.parametrize(
    ("op", "bad"),
    [
        (op, bad)
        for op in OPS
        for bad in BAD_QKV
        if not (op.startswith("estimate") and bad.startswith("v_"))  # These take no v.
    ],
)
def test_tensors(make, op, bad):
    tensors, message = BAD_QKV[bad]
    q, k, v = tensors(make)
    assert_refused(lambda api: OPS[op](api, q, k, v), make.message(message), ValueError)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("head_dim", [1, 4, 60, 100, 255])
def test_head_dim_must_be_a_multiple_of_8(make, op, head_dim):
    x = make.tokens(head_dim=head_dim)
    message = f"q: expected head_dim to be a multiple of 8, got {head_dim}"
    assert_refused(lambda api: OPS[op](api, x, x, x), message, NotImplementedError)


@pytest.mark.parametrize("op", [op for op in OPS if not op.startswith("estimate")])
@pytest.mark.parametrize("head_dim_v", [1, 4, 60, 100, 255])
def test_head_dim_of_values_must_be_a_multiple_of_8(make, op, head_dim_v):
    v = make.tokens(heads=2, head_dim=head_dim_v)
    message = f"v: expected head_dim_v to be a multiple of 8, got {head_dim_v}"
    assert_refused(lambda api: OPS[op](api, make.q, make.kv, v), message, NotImplementedError)


@pytest.mark.parametrize("bad", BAD_QKV)
def test_tensors_of_prefill(make, bad):
    tensors, message = BAD_QKV[bad]
    q, k, v = tensors(make)
    for pattern in (Dense(), VerticalSlash(40, 110)):
        with pytest.raises(ValueError, match=make.message(message)):
            minference.prefill_attn(q, k, v, pattern)


# ---- Numbers -------------------------------------------------------------------------------------

INT32_MAX = 2**31 - 1
MASS = r"expected a share in \(0, 1\], got"

NUMBERS: dict[str, tuple[Callable[[Api, Tensor, Tensor], object], str]] = {
    "vertical_size_negative": (
        lambda api, q, kv: api.vs_attn(q, kv, kv, -1, 9),
        f"vertical_size: expected 0 to {INT32_MAX}, got -1",
    ),
    "vertical_size_huge": (
        lambda api, q, kv: api.estimate_vs(q, kv, 2**40, 9),
        f"vertical_size: expected 0 to {INT32_MAX}, got {2**40}",
    ),
    "slash_size_negative": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, -5),
        f"slash_size: expected 0 to {INT32_MAX}, got -5",
    ),
    "slash_size_huge": (
        lambda api, q, kv: api.vs_attn(q, kv, kv, 9, 2**31),
        f"slash_size: expected 0 to {INT32_MAX}, got {2**31}",
    ),
    "sink_negative": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, 9, sink=-1),
        f"sink: expected 0 to {INT32_MAX}, got -1",
    ),
    "local_huge": (
        lambda api, q, kv: api.vs_attn(q, kv, kv, 9, 9, local=2**62),
        f"local: expected 0 to {INT32_MAX}, got {2**62}",
    ),
    "last_q_0": (
        lambda api, q, kv: api.vs_attn(q, kv, kv, 9, 9, last_q=0),
        "last_q: expected 1 .*, got 0",
    ),
    "last_q_65": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, 9, last_q=65),
        "last_q: expected 1 to 64, got 65",
    ),
    "vertical_p_0": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, 9, vertical_p=0.0),
        f"vertical_p: {MASS} 0",
    ),
    "vertical_p_nan": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, 9, vertical_p=NAN),
        f"vertical_p: {MASS} nan",
    ),
    "slash_p_over_1": (
        lambda api, q, kv: api.estimate_vs(q, kv, 9, 9, slash_p=1.5),
        f"slash_p: {MASS} 1.5",
    ),
    "top_p_negative": (
        lambda api, q, kv: api.estimate_blocks(q, kv, 4, top_p=-0.5),
        f"top_p: {MASS} -0.5",
    ),
    "top_k_negative": (
        lambda api, q, kv: api.estimate_blocks(q, kv, -1),
        f"top_k: expected .* to {INT32_MAX}, got -1",
    ),
    "top_k_huge": (
        lambda api, q, kv: api.block_sparse_attn(q, kv, kv, 2**33),
        f"top_k: expected .* to {INT32_MAX}, got {2**33}",
    ),
    "top_k_0_estimate": (
        lambda api, q, kv: api.estimate_blocks(q, kv, 0),
        "expected top_k >= 1, got 0",
    ),
    "top_k_0": (
        lambda api, q, kv: api.block_sparse_attn(q, kv, kv, 0),
        "top_k >= 1, got 0",
    ),
    "a_shape_sink": (
        lambda api, q, kv: api.a_shape_attn(q, kv, kv, -1, 5),
        f"sink: expected 0 to {INT32_MAX}, got -1",
    ),
    "a_shape_window": (
        lambda api, q, kv: api.a_shape_attn(q, kv, kv, 1, 2**31),
        f"window: expected 0 to {INT32_MAX}, got {2**31}",
    ),
}


@pytest.mark.parametrize("bad", NUMBERS)
def test_numbers(make, bad):
    call, message = NUMBERS[bad]
    assert_refused(lambda api: call(api, make.q, make.kv), message, ValueError)


@pytest.mark.parametrize("scale", [NAN, INF, -INF, 1e300])
@pytest.mark.parametrize(
    "call",
    [
        lambda api, q, kv, **kw: api.vs_attn(q, kv, kv, 40, 110, **kw),
        lambda api, q, kv, **kw: api.a_shape_attn(q, kv, kv, 4, 20, **kw),
        lambda api, q, kv, **kw: api.block_sparse_attn(q, kv, kv, 4, **kw),
        lambda api, q, kv, **kw: api.vs_sparse_attn(
            q, kv, kv, lists(0, 5).to(q.device), lists(0, 5).to(q.device), **kw
        ),
        lambda api, q, kv, **kw: api.block_index_attn(q, kv, kv, blocks(0, 1).to(q.device), **kw),
        lambda api, q, kv, **kw: api.estimate_vs(q, kv, 40, 110, **kw),
        lambda api, q, kv, **kw: api.estimate_blocks(q, kv, 4, **kw, top_p=0.5),
    ],
    ids=OPS,
)
def test_softmax_scale(make, call, scale):
    message = rf"softmax_scale: expected a finite float32, got {re.escape(f'{scale:g}')}"
    assert_refused(lambda api: call(api, make.q, make.kv, softmax_scale=scale), message, ValueError)


# ---- Index lists are untrusted -------------------------------------------------------------------

# The entries, and the index of the refused one.
BAD_LISTS = {
    "at_the_end": ((0, 70), 1),
    "past_the_end": ((0, INT32_MAX), 1),
    "below_the_fill": ((-2, 5), 0),
    "lowest": ((-(2**31), 0), 0),
    "unsorted": ((5, 0), 1),
    "repeated": ((5, 5), 1),
    "after_the_fill": ((-1, 5), 1),
    "unsorted_at_the_end": ((0, 1, 2, 3, 9, 8), 5),
}


def list_message(place: str, limit: int, entries: tuple[int, ...], wrong: int) -> str:
    return (
        rf"{place}: expected ascending entries in \[0, {limit}\) without duplicates.*"
        rf"got {entries[wrong]} at {wrong}"
    )


@pytest.mark.parametrize("bad", BAD_LISTS)
@pytest.mark.parametrize("name", ["vertical_index", "slash_index"])
def test_vertical_slash_lists(name, bad):
    """The last list of the last batch entry is bad; the message says where, and what it holds."""
    entries, wrong = BAD_LISTS[bad]
    index = {"vertical_index": lists(0, 5), "slash_index": lists(0, 5)} | {name: lists(*entries)}
    message = list_message(rf"{name}\[1, 3\]", 70, entries, wrong)
    assert_refused(lambda api: api.vs_sparse_attn(Q, KV, KV, *index.values()), message, ValueError)


BAD_BLOCKS = BAD_LISTS | {
    "at_the_end": ((0, 2), 1),
    "unsorted": ((1, 0), 1),
    "repeated": ((1, 1), 1),
    "unsorted_at_the_end": ((0, 1, 0), 2),
}


@pytest.mark.parametrize("bad", BAD_BLOCKS)
def test_block_lists(bad):
    entries, wrong = BAD_BLOCKS[bad]
    message = list_message(r"block_index\[1, 3, 1\]", 2, entries, wrong)
    assert_refused(
        lambda api: api.block_index_attn(Q, KV, KV, blocks(*entries)), message, ValueError
    )


@pytest.mark.parametrize(
    ("vertical", "slash", "message"),
    [
        (lists(0, 5).long(), lists(0, 5), "vertical_index: expected dtype int32, got int64"),
        (lists(0, 5), lists(0, 5).float(), "slash_index: expected dtype int32, got float32"),
        (lists(0, 5)[0], lists(0, 5), "vertical_index: expected 3 dimensions, got 2"),
        (lists(0, 5), lists(0, 5)[0], "slash_index: expected 3 dimensions, got 2"),
        (lists(0, 5, heads=2), lists(0, 5), r"vertical_index: expected .*, got \[2, 2, 2\]"),
        (lists(0, 5), lists(0, 5, batch=1), r"(slash_index|runs).* expected .*, got \[1, 4"),
        (lists(0, 5), lists(0, 5, heads=2), r"(slash_index|runs).* expected .*, got \[2, 2"),
    ],
    ids=["v_dtype", "s_dtype", "v_rank", "s_rank", "v_heads", "s_batch", "s_heads"],
)
def test_shapes_of_vertical_slash_lists(vertical, slash, message):
    assert_refused(lambda api: api.vs_sparse_attn(Q, KV, KV, vertical, slash), message, ValueError)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (blocks(0, 1).long(), "block_index: expected dtype int32, got int64"),
        (blocks(0, 1)[0], "block_index: expected 4 dimensions, got 3"),
        (blocks(0, 1, heads=2), r"block_index: expected .*, got \[2, 2, 2, 2\]"),
        (blocks(0, 1, batch=1), r"block_index: expected .*, got \[1, 4, 2, 2\]"),
        (blocks(0, 1, row_blocks=3), r"block_index: expected .*, got \[2, 4, 3, 2\]"),
        (blocks(0, 1, row_blocks=1), r"block_index: expected .*, got \[2, 4, 1, 2\]"),
    ],
    ids=["dtype", "rank", "heads", "batch", "row_blocks_3", "row_blocks_1"],
)
def test_shapes_of_block_lists(index, message):
    assert_refused(lambda api: api.block_index_attn(Q, KV, KV, index), message, ValueError)


# ---- Patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 2, 3, 5])
def test_number_of_patterns(count):
    with pytest.raises(ValueError, match=f"patterns: expected .*4.*, got {count}"):
        minference.prefill_attn(Q, KV, KV, [Dense()] * count)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AShape(-1, 5), "sink.*-1"),
        (lambda: AShape(1, -5), "window.*-5"),
        (lambda: TriShape(1, 5, -2), "last.*-2"),
        (lambda: VerticalSlash(-3, 5), "vertical_size.*-3"),
        (lambda: VerticalSlash(3, -5), "slash_size.*-5"),
        (lambda: BlockSparse(0), "top_k.*0"),
        (lambda: BlockSparse(-1), "top_k.*-1"),
        (lambda: AShape(2**31, 5), f"sink.*{2**31}"),
    ],
    ids=["sink", "window", "last", "vertical_size", "slash_size", "top_k_0", "top_k", "huge"],
)
def test_sizes_of_patterns(make, message):
    """Refused when made or when used, whichever comes first."""
    with pytest.raises(ValueError, match=message):
        minference.prefill_attn(Q, KV, KV, [Dense(), Dense(), Dense(), make()])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 0, 0, 0]] * 3, "num_patterns: expected num_heads_q = 4 or 1, got 3"),
        ([[5, 0, 0, 0]], r"patterns\[0\]: expected a kind in \[0, 4\], got 5"),
        ([[0, 0, 0, 0]] * 3 + [[-1, 0, 0, 0]], r"patterns\[3\]: expected a kind .*, got -1"),
        ([[1, -2, 5, 0]], r"patterns\[0\] \(a_shape\): expected sink >= 0, got -2"),
        ([[3, 0, 0, 0]], r"patterns\[0\] \(block_sparse\): expected top_k >= 1, got 0"),
        ([[4, 0, 0, -1]], r"patterns\[0\] \(tri_shape\): expected last >= 0, got -1"),
        ([[0, 7, 0, 0]], r"patterns\[0\]: \(dense\): expected 0 after its 0 fields, got 7"),
        ([[1, 9, 9, 9]], r"patterns\[0\]: \(a_shape\): expected 0 after its 2 fields, got 9"),
        ([[2, 9, 9, 99]], r"patterns\[0\] \(vertical_slash\): last_q: expected 1 to 64, got 99"),
        ([[0, 0, 0]], r"patterns: expected 4 columns \(kind and fields, int32\), got 3"),
        ([0, 0, 0, 0], "patterns: expected 2 dimensions, got 1"),
        ([], "patterns: expected 2 dimensions, got 1"),
    ],
    ids=str,
)
def test_pattern_rows(rows, message):
    patterns = torch.tensor(rows, dtype=torch.int32)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.minference.prefill_attn(Q, KV, KV, patterns)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            [2, 9, 9, 64, 0, 0, 1.5, 1],
            r"patterns\[0\] .*: vertical_p: .* a share .*, got 1.5",
        ),
        ([2, 9, 9, 64, 0, 0, 1, 0], r"patterns\[0\] .*: slash_p: expected a share .*, got 0"),
        ([2, 9, 0.5, 64, 0, 0, 1, 1], r"patterns\[0\]: .*: slash_size: .* an int32, got 0.5"),
        ([2, 9, INF, 64, 0, 0, 1, 1], r"slash_size: expected an int32, got inf"),
        ([3, 9, NAN, 0, 0, 0, 0, 0], r"top_p: expected a share .*, got nan"),
        ([0.5, 0, 0, 0, 0, 0, 0, 0], r"patterns\[0\]: expected a kind in \[0, 4\], got 0.5"),
        ([NAN, 0, 0, 0, 0, 0, 0, 0], r"patterns\[0\]: expected a kind in \[0, 4\], got nan"),
        ([3, 9, 1, 0, 0, 0, 0, 1], r"\(block_sparse\): expected 0 after its 2 fields, got 1"),
        ([0, 0, 0, 0], r"patterns: expected 8 columns \(kind and fields, float64\), got 4"),
    ],
    ids=str,
)
def test_pattern_rows_with_options(row, message):
    patterns = torch.tensor([row], dtype=torch.float64)
    with pytest.raises(RuntimeError, match=message):
        torch.ops.minference.prefill_attn(Q, KV, KV, patterns)


def test_pattern_dtype():
    message = r"patterns: expected a float64 or an int32 tensor on the CPU, got Long"
    with pytest.raises(RuntimeError, match=message):
        torch.ops.minference.prefill_attn(Q, KV, KV, torch.zeros(4, 4, dtype=torch.int64))


# ---- Merge ---------------------------------------------------------------------------------------

LSE = torch.zeros(2, 4, 70)

BAD_MERGES = {
    "out_a_rank": (Q[0], LSE, Q, LSE, "out_a: expected 4 dimensions, got 3"),
    "lse_a_rank": (Q, LSE[0], Q, LSE, "lse_a: expected 3 dimensions, got 2"),
    "out_b_shape": (Q, LSE, Q[:, :9], LSE, r"out_b: expected .*70.*, got \[2, 9, 4, 64\]"),
    "lse_b_shape": (Q, LSE, Q, LSE[:1], r"lse_b: expected .*, got \[1, 4, 70\]"),
    "lse_a_like_out": (
        Q,
        LSE.mT.contiguous(),
        Q,
        LSE,
        r"lse_a: expected shape .*, got \[2, 70, 4\]",
    ),
    "out_b_dtype": (Q, LSE, Q.half(), LSE, "out_b: expected dtype float32 like out_a, got float16"),
    "lse_b_dtype": (Q, LSE, Q, LSE.half(), "lse_b: expected dtype float32, got float16"),
    "out_a_stride": (strided(Q), LSE, Q, LSE, "out_a: expected innermost stride 1, got "),
    "head_dim": (
        *(CPU.tokens(head_dim=264), LSE) * 2,
        "out_a: expected head_dim 8 to 256, got 264",
    ),
}


@pytest.mark.parametrize("bad", BAD_MERGES)
def test_merge(bad):
    *parts, message = BAD_MERGES[bad]
    assert_refused(lambda api: api.merge_attn(*parts), message, ValueError)


# ---- Devices -------------------------------------------------------------------------------------


def test_every_backend_is_listed_and_says_why_not():
    backends = {backend["name"]: backend for backend in _C.backends()}
    assert list(backends) == ["sm90", "sm80", "cpu"]
    assert backends["cpu"]["available"]
    assert backends["cpu"]["selected"]
    for backend in backends.values():
        assert backend["available"] == (backend["reason"] == "")
        assert backend["available"] or not backend["selected"]
    if not torch.cuda.is_available():
        assert re.match(r"not built \(|no CUDA driver|no GPU|driver supports|GPU 0 is|cannot list "
                        r"GPUs", backends["sm80"]["reason"])  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "error"),
    [
        ("no device", NotImplementedError),
        ("driver too old", NotImplementedError),
        ("architecture not built", NotImplementedError),
        ("wrong device", ValueError),
        ("wrong stream", ValueError),
        ("launch failed", RuntimeError),
        ("CUDA", RuntimeError),
    ],
)
def test_cuda_errors_become_exception_types(prefix, error):
    """The texts are those of csrc/torch/interop.h, which only a machine with a GPU can raise."""

    def op() -> None:
        msg = f"minference: {prefix}: expected, got"
        raise RuntimeError(msg)

    interop = Path(__file__).parents[2] / "csrc/torch/interop.h"
    assert f'"minference: {prefix}: "' in interop.read_text()
    with pytest.raises(error, match=f"minference: {prefix}: expected, got") as raised:
        _library.call(op)
    assert type(raised.value) is error


@needs_cuda
def test_mixed_devices():
    make = Maker("cuda")
    with pytest.raises(ValueError, match="k: expected a tensor on cuda:0 like q, got one on cpu"):
        minference.a_shape_attn(make.q, make.kv.cpu(), make.kv.cpu(), 4, 20)


@needs_cuda
@pytest.mark.parametrize("op", OPS)
def test_what_a_gpu_does_not_serve(op):
    make = Maker("cuda")
    q, kv = make.q.float(), make.kv.float()
    message = "q: expected dtype bfloat16 or float16 on CUDA devices, got float32"
    assert_refused(lambda api: OPS[op](api, q, kv, kv), message, NotImplementedError)

    bad = {
        "stride 68 in dimension 2": make.tokens(heads=2, head_dim=68)[..., :64],
        "data at address": make.tokens(heads=2, head_dim=72)[..., 1:65],
    }
    for got, rows in bad.items():
        calls = {"k": (make.q, rows, make.kv), "v": (make.q, make.kv, rows)}
        if op.startswith("estimate"):
            del calls["v"]
        for name, qkv in calls.items():
            assert_refused(
                lambda api, qkv=qkv: OPS[op](api, *qkv),
                f"{name}: expected rows aligned to 16 bytes .*, got {got}",
                NotImplementedError,
            )
