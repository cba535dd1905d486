# SPDX-License-Identifier: Apache-2.0
"""Attention, GPU only: graphs, streams, long sequences, and memory full of NaN.

Skipped without a GPU. test_attention.py covers small shapes on every device.
"""

from __future__ import annotations

import math

import minference
import pytest
import reference
import torch
from conftest import DEVICES
from cuda_checks import (
    Call,
    assert_replay_reads_the_inputs_of_the_replay,
    assert_same_bits,
    assert_same_bits_every_run,
    assert_work_goes_to_the_current_stream,
)
from minference import AShape, BlockSparse, Dense, TriShape, VerticalSlash
from reference import BLOCK
from strategies import Pattern, make_qkv, static_mask
from torch import Tensor

pytestmark = pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")

PATTERNS: dict[str, Pattern] = {
    "dense": Dense(),
    "a_shape": AShape(100, 500),
    "tri_shape": TriShape(100, 500, 200),
    "vertical_slash": VerticalSlash(300, 400),
    "block_sparse": BlockSparse(12),
}
MIXED = list(PATTERNS.values())

CALLS: dict[str, Call] = {
    **{
        name: lambda q, k, v, p=pattern: minference.prefill_attn(q, k, v, p)
        for name, pattern in PATTERNS.items()
    },
    "mixed": lambda q, k, v: minference.prefill_attn(q, k, v, MIXED),
    "given_runs": lambda q, k, v: minference.vs_sparse_attn(
        q, k, v, *minference.estimate_vs(q, k, 300, 400)
    ),
    "given_blocks": lambda q, k, v: minference.block_index_attn(
        q, k, v, minference.estimate_blocks(q, k, 12)
    ),
    "one_row": lambda q, k, v: minference.prefill_attn(q[:, -1:], k, v, MIXED),
    "merged": lambda q, k, v: minference.merge_attn(
        *minference.prefill_attn(q, k, v, Dense()), *minference.prefill_attn(q, k, v, MIXED)
    ),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
one_at_a_time = pytest.mark.xdist_group("gpu_memory")


def make_inputs(seed: int, seqlen: int = 3000) -> tuple[Tensor, Tensor, Tensor]:
    """One head for each of MIXED, 5 on 1; head_dim 128."""
    return make_qkv(1, seqlen, seqlen, (5, 1), 128, dtype=torch.bfloat16, device="cuda", seed=seed)


# ---- Graphs, streams, runs -----------------------------------------------------------------------


@each_call
def test_graph_replay_reads_the_inputs_of_the_replay(call):
    assert_replay_reads_the_inputs_of_the_replay(call, make_inputs)


@each_call
def test_work_goes_to_the_current_stream(call):
    assert_work_goes_to_the_current_stream(call, make_inputs)


@each_call
def test_two_streams_at_once(call):
    """The calls share nothing but the GPU; different lengths make them overlap."""
    problems = [make_inputs(seed=0, seqlen=3000), make_inputs(seed=1, seqlen=4500)]
    wants = [call(*problem) for problem in problems]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in problems]
    results = []
    for _ in range(5):
        for stream, problem, want in zip(streams, problems, wants, strict=True):
            with torch.cuda.stream(stream):
                results.append((call(*problem), want))
    torch.cuda.synchronize()
    for got, want in results:
        assert_same_bits(got, want)


@each_call
def test_same_bits_every_run(call):
    assert_same_bits_every_run(call, make_inputs(seed=3, seqlen=20_000), runs=5)


# ---- Memory --------------------------------------------------------------------------------------


def fill_free_memory(byte: int) -> None:
    """Fill what the allocator hands out next; 255 makes NaN in every floating-point format.

    Torch serves requests from 1 MiB on from the large block, smaller ones from the small blocks.
    """
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    sizes = [1 << 30] + 64 * [1 << 20]
    held = [torch.full((size,), byte, dtype=torch.uint8, device="cuda") for size in sizes]
    torch.cuda.synchronize()
    del held


@one_at_a_time
@each_call
def test_what_memory_held_before_does_not_matter(call):
    """Outputs and work memory: what is not written, or read before it is written, would show."""
    inputs = make_inputs(seed=4, seqlen=5003)
    want = call(*inputs)
    for byte in (255, 0, 127):
        fill_free_memory(byte)
        assert_same_bits(call(*inputs), want)
    assert all(result.isfinite().all() for result in want)


# ---- Long sequences ------------------------------------------------------------------------------


def scaled_qkv(
    seqlen_q: int, seqlen_k: int, num_heads: tuple[int, int], head_dim: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of standard deviation 3: a hundred of a million keys matter, and out is not noise."""
    generator = torch.Generator("cuda").manual_seed(seqlen_k + seqlen_q)
    q, k, v = (
        torch.randn(
            (1, seqlen, heads, head_dim), generator=generator, device="cuda", dtype=torch.bfloat16
        )
        for seqlen, heads in (
            (seqlen_q, num_heads[0]),
            (seqlen_k, num_heads[1]),
            (seqlen_k, num_heads[1]),
        )
    )
    return 3 * q, k, v


def block_mask(
    pattern: Pattern, row_block: int, seqlen_q: int, seqlen_k: int, lists: tuple[Tensor, ...]
) -> Tensor:
    """The mask of one row block of one head, and the number of keys up to its last row.

    A row block can be computed as a separate call: what it attends does not depend on later rows
    and keys. ``lists`` are the head's, as stage 1 gives them for the whole call.
    """
    rows = min(BLOCK, seqlen_q - BLOCK * row_block)
    keys = BLOCK * row_block + rows + seqlen_k - seqlen_q
    match pattern:
        case VerticalSlash():
            columns, distances = lists
            return reference.vertical_slash_mask(rows, keys, columns[columns < keys], distances)
        case BlockSparse():
            blocks = lists[0][row_block : row_block + 1]
            return reference.block_sparse_mask(rows, keys, blocks)
        case TriShape(sink, window, last):
            after = seqlen_q - BLOCK * row_block - rows
            return reference.tri_shape_mask(rows, keys, sink, window, max(0, last - after))
    return static_mask(pattern, rows, keys)


def lists_of(pattern: Pattern, q: Tensor, k: Tensor) -> tuple[Tensor, ...]:
    """Stage 1's lists of all heads; test_estimate.py tests whether they are right."""
    match pattern:
        case VerticalSlash(vertical_size, slash_size):
            return minference.estimate_vs(q, k, vertical_size, slash_size)
        case BlockSparse(top_k):
            return (minference.estimate_blocks(q, k, top_k),)
    return ()


def assert_sampled_rows(
    got: tuple[Tensor, Tensor],
    qkv: tuple[Tensor, Tensor, Tensor],
    head: int,
    pattern: Pattern,
    lists: tuple[Tensor, ...],
) -> None:
    """Check a few rows of a few row blocks of one head, against float64 on the GPU."""
    q, k, v = qkv
    out, lse = got
    seqlen_q, seqlen_k = q.shape[1], k.shape[1]
    head_kv = head // (q.shape[2] // k.shape[2])
    head_lists = tuple(x[0, head].cpu() for x in lists)
    last = reference.row_blocks(seqlen_q) - 1
    for row_block in sorted({0, 1, last // 3, last - 1, last} & set(range(last + 1))):
        mask = block_mask(pattern, row_block, seqlen_q, seqlen_k, head_lists)
        rows = torch.tensor(sorted({0, 15, 16, 37, len(mask) - 1} & set(range(len(mask)))))
        at = BLOCK * row_block + rows.cuda()
        keys = slice(0, mask.shape[1])
        want_out, want_lse, bound = reference.attention_and_bound(
            q[:, at, head : head + 1],
            k[:, keys, head_kv : head_kv + 1],
            v[:, keys, head_kv : head_kv + 1],
            mask[rows].cuda(),
        )
        where = f"head {head}, {pattern}, row block {row_block}"
        reference.assert_lse_close(lse[:, head : head + 1, at], want_lse, f"lse, {where}")
        reference.assert_within(out[:, at, head : head + 1], want_out, bound, f"out, {where}")


LONG_PATTERNS: dict[str, Pattern] = {
    "dense": Dense(),
    "a_shape": AShape(128, 1024),
    "tri_shape": TriShape(128, 1024, 100),
    "vertical_slash": VerticalSlash(1000, 6096),
    "block_sparse": BlockSparse(100),
}


@one_at_a_time
@pytest.mark.parametrize("pattern", LONG_PATTERNS.values(), ids=LONG_PATTERNS)
@pytest.mark.parametrize("seqlen", [(1 << 17) - 1, 1 << 20], ids=["128K", "1M"])
def test_long_sequences(seqlen, pattern):
    qkv = scaled_qkv(seqlen, seqlen, (2, 1), 64)
    got = minference.prefill_attn(*qkv, pattern)
    lists = lists_of(pattern, *qkv[:2])
    for head in (0, 1):
        assert_sampled_rows(got, qkv, head, pattern, lists)


@one_at_a_time
def test_long_chunk():
    """The last 5000 rows over 400K keys, with a pattern per head."""
    qkv = scaled_qkv(5000, 400_000, (5, 1), 128)
    patterns = list(LONG_PATTERNS.values())
    got = minference.prefill_attn(*qkv, patterns)
    for head, pattern in enumerate(patterns):
        assert_sampled_rows(got, qkv, head, pattern, lists_of(pattern, *qkv[:2]))


@pytest.mark.parametrize("pattern", LONG_PATTERNS.values(), ids=LONG_PATTERNS)
@pytest.mark.parametrize("num_heads", [(8, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("seqlen_q", [1, 5, 64])
def test_few_rows_over_many_keys(seqlen_q, num_heads, pattern):
    """Too few row blocks to fill a GPU: their keys are split, and the parts are merged."""
    qkv = scaled_qkv(seqlen_q, 1 << 17, num_heads, 128)
    got = minference.prefill_attn(*qkv, pattern)
    lists = lists_of(pattern, *qkv[:2])
    for head in range(num_heads[0]):
        assert_sampled_rows(got, qkv, head, pattern, lists)


@one_at_a_time
def test_tensors_beyond_two_to_the_31_elements():
    """q, k, v and out of 600K tokens in 32 heads of 128: offsets up to 2.4e9 elements."""
    qkv = scaled_qkv(600_000, 600_000, (32, 32), 128)
    assert qkv[0].numel() > 2**31
    patterns = [AShape(64, 128)] * 32
    patterns[15:17] = [VerticalSlash(100, 150), BlockSparse(8)]
    patterns[30:] = [BlockSparse(8), VerticalSlash(100, 150)]
    out, lse = minference.prefill_attn(*qkv, patterns)
    for head in (0, 15, 16, 29, 30, 31):
        one = [x[:, :, head : head + 1] for x in qkv]
        got = out[:, :, head : head + 1], lse[:, head : head + 1]
        assert_sampled_rows(got, tuple(one), 0, patterns[head], lists_of(patterns[head], *one[:2]))

    # Merging two equal halves leaves out unchanged and adds log 2 to lse.
    del qkv
    merged, merged_lse = minference.merge_attn(out, lse, out, lse)
    for token in (0, 299_999, 599_999):
        torch.testing.assert_close(merged[:, token], out[:, token], rtol=2**-7, atol=0)
    torch.testing.assert_close(merged_lse, lse + math.log(2))
