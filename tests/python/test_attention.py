# SPDX-License-Identifier: Apache-2.0
"""Stage 3 against float64: out and lse for all patterns, dtypes, shapes, layouts and isas."""

from __future__ import annotations

import hypothesis
import minference
import pytest
import reference
import torch
from hypothesis import strategies as st
from minference import AShape, BlockSparse, Dense, TriShape, VerticalSlash
from strategies import (
    DTYPES,
    LAYOUTS,
    SHAPES,
    Attend,
    Pattern,
    Problem,
    block_indices,
    index_list,
    make_qkv,
    patterns,
    problems,
    random_block_index,
    random_index,
    static_mask,
    vertical_slash_indices,
)
from torch import Tensor

# How a kernel gets its keys: by pattern, by columns and runs, by blocks.
KINDS = ["dense", "a_shape", "tri_shape", "vertical_slash", "block_sparse"]


def case_of(kind: str, q: Tensor, k: Tensor, **options: float) -> tuple[Attend, Tensor]:
    """Return a call that attends by ``kind``, and its mask. Index lists differ by head."""
    batch, seqlen_q, num_heads_q, _ = q.shape
    seqlen_k = k.shape[1]
    if kind == "vertical_slash":
        vertical = random_index(batch, num_heads_q, seqlen_k, most=90).to(q.device)
        slash = random_index(batch, num_heads_q, seqlen_k, most=4).to(q.device)
        mask = reference.vertical_slash_masks(seqlen_q, seqlen_k, vertical, slash)
        return lambda q, k, v: minference.vs_sparse_attn(q, k, v, vertical, slash, **options), mask
    if kind == "block_sparse":
        blocks = random_block_index(batch, num_heads_q, seqlen_q, seqlen_k).to(q.device)
        mask = reference.block_sparse_masks(seqlen_q, seqlen_k, blocks)
        return lambda q, k, v: minference.block_index_attn(q, k, v, blocks, **options), mask
    pattern = {"dense": Dense(), "a_shape": AShape(9, 50), "tri_shape": TriShape(3, 40, 70)}[kind]
    mask = static_mask(pattern, seqlen_q, seqlen_k)
    return lambda q, k, v: minference.prefill_attn(q, k, v, pattern, **options), mask


def check(kind: str, q: Tensor, k: Tensor, v: Tensor, **options: float) -> None:
    attend, mask = case_of(kind, q, k, **options)
    reference.assert_attention(attend(q, k, v), q, k, v, mask, **options)


# ---- One pattern for all heads -------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(device, isa, kind, dtype, shape):
    check(kind, *make_qkv(2, *shape, dtype=dtype, device=device))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("head_dim", [8, 24, 40, 64, 80, 96, 128, 184, 192, 248, 256])
def test_head_dims(device, isa, kind, dtype, head_dim):
    check(kind, *make_qkv(1, 70, 333, head_dim=head_dim, dtype=dtype, device=device))


# DeepSeek's; a little wider, much wider, narrower. Eight heads share a KV head, and the call
# computes as many rows together as fit its work memory: fewer if values are wider.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("head_dims", [(192, 128), (64, 96), (128, 64), (8, 256)], ids=str)
def test_head_dims_of_values(device, isa, kind, dtype, head_dims):
    head_dim, head_dim_v = head_dims
    qkv = make_qkv(1, 190, 333, (8, 1), head_dim, head_dim_v=head_dim_v, dtype=dtype, device=device)
    check(kind, *qkv)


# MHA, GQA and MQA: heads of one KV head may share work, also more of them than fit one unit of
# work.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("num_heads", [(3, 3), (4, 2), (4, 1), (7, 1), (12, 2), (20, 1)], ids=str)
def test_head_ratios(device, isa, kind, dtype, num_heads):
    check(kind, *make_qkv(1, 130, 290, num_heads, dtype=dtype, device=device))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, isa, kind, dtype, layout):
    check(kind, *make_qkv(2, 70, 200, head_dim=72, dtype=dtype, layout=layout, device=device))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("softmax_scale", [0.0, 1.0, -0.3])
def test_softmax_scale(device, isa, kind, dtype, softmax_scale):
    """1.0 makes logits of +-30 and a nearly one-hot softmax; 0 attends evenly."""
    check(kind, *make_qkv(1, 70, 200, dtype=dtype, device=device), softmax_scale=softmax_scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("step", [0.02, 0.4, 1.0])
def test_growing_maximum(device, isa, kind, dtype, step):
    """Each key scores ``step`` more than the one before: over 256 keys by 2^7, 2^148, 2^369.

    A running maximum that lags behind would overflow float32 from the second on.
    """
    q, k, v = make_qkv(1, 300, 600, dtype=dtype, device=device)
    q[..., 0] = 8.0
    k[..., 0] = step * torch.arange(600, device=device)[:, None]
    check(kind, q, k, v)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_falling_maximum(device, isa, kind, dtype):
    """The first keys outweigh later ones by more than any format can hold: those become 0."""
    q, k, v = make_qkv(1, 300, 300, dtype=dtype, device=device)
    q[..., 0] = 8.0
    k[..., 0] = -torch.arange(300, device=device)[:, None]
    check(kind, q, k, v)


# ---- A pattern for each head ---------------------------------------------------------------------


def mask_of(pattern: Pattern, head: int, q: Tensor, k: Tensor) -> Tensor:
    """One head's mask, ``[batch, seqlen_q, seqlen_k]``, with the indices that stage 1 gives.

    test_estimate.py tests whether those are right.
    """
    seqlen_q, seqlen_k = q.shape[1], k.shape[1]
    kv_head = head // (q.shape[2] // k.shape[2])
    q, k = q[:, :, head : head + 1], k[:, :, kv_head : kv_head + 1]
    match pattern:
        case VerticalSlash(vertical_size, slash_size):
            indices = minference.estimate_vs(q, k, vertical_size, slash_size)
            return reference.vertical_slash_masks(seqlen_q, seqlen_k, *indices)[:, 0]
        case BlockSparse(top_k):
            block_index = minference.estimate_blocks(q, k, top_k)
            return reference.block_sparse_masks(seqlen_q, seqlen_k, block_index)[:, 0]
    return static_mask(pattern, seqlen_q, seqlen_k).expand(q.shape[0], -1, -1)


def check_patterns(head_patterns: list[Pattern], q: Tensor, k: Tensor, v: Tensor) -> None:
    mask = torch.stack([mask_of(p, h, q, k) for h, p in enumerate(head_patterns)], dim=1)
    reference.assert_attention(minference.prefill_attn(q, k, v, head_patterns), q, k, v, mask)


# Neighbours differ in one size, or not at all: only then heads share work.
MIXED = [
    *(Dense(), Dense(), AShape(9, 50), AShape(9, 90), AShape(100, 90), AShape(100, 90)),
    *(TriShape(100, 90, 70), TriShape(100, 90, 7), VerticalSlash(40, 120)),
    *(VerticalSlash(100, 120), BlockSparse(4), BlockSparse(3)),
]


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("num_heads_kv", [12, 6, 2, 1])
@pytest.mark.parametrize("shape", [(200, 200), (70, 333), (1, 150)], ids=str)
def test_mixed_patterns(device, isa, dtype, num_heads_kv, shape):
    check_patterns(MIXED, *make_qkv(2, *shape, (12, num_heads_kv), dtype=dtype, device=device))


def test_one_pattern_is_for_all_heads(device, isa):
    q, k, v = make_qkv(2, 130, 290, device=device)
    for pattern in MIXED:
        one = minference.prefill_attn(q, k, v, pattern)
        each = minference.prefill_attn(q, k, v, [pattern] * q.shape[2])
        assert torch.equal(one[0], each[0])
        assert torch.equal(one[1], each[1])


@pytest.mark.parametrize("head_dim_v", [64, 40, 104])
def test_whole_calls_are_their_stages(device, isa, head_dim_v):
    """vs_attn, a_shape_attn, block_sparse_attn, prefill_attn give the bits of their stages."""
    q, k, v = make_qkv(2, 130, 290, head_dim_v=head_dim_v, device=device, dtype=torch.bfloat16)
    a_shape, _ = minference.prefill_attn(q, k, v, AShape(9, 50))
    assert torch.equal(minference.a_shape_attn(q, k, v, 9, 50), a_shape)

    staged = minference.vs_sparse_attn(q, k, v, *minference.estimate_vs(q, k, 40, 120))
    whole = minference.prefill_attn(q, k, v, VerticalSlash(40, 120))
    assert torch.equal(whole[0], staged[0])
    assert torch.equal(whole[1], staged[1])
    assert torch.equal(minference.vs_attn(q, k, v, 40, 120), staged[0])

    staged = minference.block_index_attn(q, k, v, minference.estimate_blocks(q, k, 4))
    whole = minference.prefill_attn(q, k, v, BlockSparse(4))
    assert torch.equal(whole[0], staged[0])
    assert torch.equal(whole[1], staged[1])
    assert torch.equal(minference.block_sparse_attn(q, k, v, 4), staged[0])


def test_estimate_options_reach_stage_1(device):
    q, k, v = make_qkv(1, 200, 200, device=device)
    options = {"softmax_scale": 0.3, "last_q": 20, "sink": 3, "local": 10}
    indices = minference.estimate_vs(q, k, 20, 30, **options)
    staged, _ = minference.vs_sparse_attn(q, k, v, *indices, softmax_scale=0.3)
    assert torch.equal(minference.vs_attn(q, k, v, 20, 30, **options), staged)


# ---- The ends: nothing attended, everything attended ---------------------------------------------


def none_attended(out: Tensor, lse: Tensor) -> bool:
    return bool(torch.all(out == 0) and torch.all(lse == -torch.inf))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_rows_without_keys(device, isa, dtype):
    """out = 0 and lse = -inf, exactly, beside rows that do attend."""
    q, k, v = make_qkv(2, 200, 200, dtype=dtype, device=device)
    batch, _, num_heads_q, _ = q.shape

    assert none_attended(*minference.prefill_attn(q, k, v, AShape(0, 0)))

    none = torch.empty(batch, num_heads_q, 0, dtype=torch.int32, device=device)
    assert none_attended(*minference.vs_sparse_attn(q, k, v, none, none))
    fill = torch.full((batch, num_heads_q, 5), -1, dtype=torch.int32, device=device)
    assert none_attended(*minference.vs_sparse_attn(q, k, v, fill, fill))

    column = torch.full((batch, num_heads_q, 1), 70, dtype=torch.int32, device=device)
    out, lse = minference.vs_sparse_attn(q, k, v, column, none)
    assert none_attended(out[:, :70], lse[..., :70])
    mask = (torch.arange(200) == 70) & reference.dense_mask(200, 200)
    reference.assert_attention((out, lse), q, k, v, mask)

    blocks = torch.full((batch, num_heads_q, 4, 2), -1, dtype=torch.int32, device=device)
    blocks[..., 1, 0] = 1
    blocks[..., 3, 0] = 2
    out, lse = minference.block_index_attn(q, k, v, blocks)
    assert none_attended(out[:, :64], lse[..., :64])
    assert none_attended(out[:, 128:192], lse[..., 128:192])
    mask = reference.block_sparse_mask(200, 200, blocks[0, 0].cpu())
    reference.assert_attention((out, lse), q, k, v, mask)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_keys_in_every_form_is_dense(device, isa, dtype, shape):
    """All columns, all distances, all blocks, a window past the start: all are dense attention."""
    seqlen_q, seqlen_k = shape
    q, k, v = make_qkv(1, seqlen_q, seqlen_k, dtype=dtype, device=device)
    heads = [list(range(seqlen_k))] * q.shape[2]
    every = index_list(heads, 1, q.shape[2]).to(device)
    none = torch.empty(1, q.shape[2], 0, dtype=torch.int32, device=device)
    blocks = torch.arange(reference.row_blocks(seqlen_k), dtype=torch.int32, device=device)
    block_index = blocks.expand(1, q.shape[2], reference.row_blocks(seqlen_q), -1)

    mask = reference.dense_mask(seqlen_q, seqlen_k)
    for got in (
        minference.prefill_attn(q, k, v, Dense()),
        minference.vs_sparse_attn(q, k, v, every, none),
        minference.vs_sparse_attn(q, k, v, none, every),
        minference.vs_sparse_attn(q, k, v, every, every),
        minference.block_index_attn(q, k, v, block_index),
        minference.prefill_attn(q, k, v, AShape(seqlen_k, 0)),
        minference.prefill_attn(q, k, v, AShape(0, seqlen_k)),
        minference.prefill_attn(q, k, v, TriShape(0, 1, seqlen_q)),
        minference.prefill_attn(q, k, v, VerticalSlash(seqlen_k, 0)),
        minference.prefill_attn(q, k, v, BlockSparse(len(blocks))),
    ):
        reference.assert_attention(got, q, k, v, mask)


def test_no_query_rows_and_no_batch(device):
    for batch, seqlen_q in ((1, 0), (0, 5)):
        q, k, v = make_qkv(batch, seqlen_q, 70, head_dim_v=24, device=device)
        for pattern in MIXED:
            out, lse = minference.prefill_attn(q, k, v, pattern)
            assert out.shape == (*q.shape[:3], 24)
            assert lse.shape == (batch, q.shape[2], seqlen_q)


def test_more_rows_than_16_bits(device):
    """Past 65535 rows; the last row block is checked as a separate call."""
    seqlen = 65_536 + 100
    q, k, v = make_qkv(1, seqlen, seqlen, (1, 1), device=device)
    vertical = torch.tensor([[[0, 1, 40_000, 65_600]]], dtype=torch.int32, device=device)
    slash = torch.tensor([[[0, 1, 64, 30_000]]], dtype=torch.int32, device=device)
    rows = slice(seqlen // 64 * 64, seqlen)
    tail = seqlen - rows.start

    out, lse = minference.vs_sparse_attn(q, k, v, vertical, slash)
    mask = reference.vertical_slash_mask(tail, seqlen, vertical[0, 0].cpu(), slash[0, 0].cpu())
    reference.assert_attention((out[:, rows], lse[..., rows]), q[:, rows], k, v, mask)

    out, lse = minference.prefill_attn(q, k, v, AShape(4, 70))
    mask = reference.a_shape_mask(tail, seqlen, 4, 70)
    reference.assert_attention((out[:, rows], lse[..., rows]), q[:, rows], k, v, mask)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("pattern", [Dense(), AShape(5000, 9000), TriShape(70, 300, 100)], ids=str)
@pytest.mark.parametrize("head_dim_v", [64, 200])
def test_long_keys(isa, dtype, pattern, head_dim_v):
    """Lengths from which more rows are computed together; checks some rows of each."""
    seqlen_q, seqlen_k = 300, 16_500
    q, k, v = make_qkv(1, seqlen_q, seqlen_k, (4, 1), head_dim_v=head_dim_v, dtype=dtype)
    rows = torch.tensor([0, 31, 32, 63, 64, 130, 199, 200, 255, 256, 299])
    out, lse = minference.prefill_attn(q, k, v, pattern)
    mask = static_mask(pattern, seqlen_q, seqlen_k)[rows]
    reference.assert_attention((out[:, rows], lse[..., rows]), q[:, rows], k, v, mask)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("logit", [1e4, -1e4, 1e6, -1e6])
def test_large_logits(device, isa, dtype, logit):
    """All logits are equal: however far from 0, softmax only sees differences."""
    q, k, v = make_qkv(1, 200, 200, dtype=dtype, device=device)
    q[..., :] = 0.0
    q[..., 0] = 256.0
    k[..., 0] = abs(logit) ** 0.5 / 4
    scale = logit / (256.0 * k[0, 0, 0, 0].item())
    out, lse = minference.prefill_attn(q, k, v, AShape(20, 100), softmax_scale=scale)
    mask = reference.a_shape_mask(200, 200, 20, 100)
    # Only rounding to the dtype and sums over keys can err, because all logits are equal.
    zeros = torch.zeros(q.shape, dtype=dtype), torch.zeros(k.shape, dtype=dtype)
    want_out, _, bound = reference.attention_and_bound(*zeros, v.cpu(), mask)
    reference.assert_within(out.cpu(), want_out, bound)
    reference.assert_lse_close(lse.cpu(), (mask.sum(-1).double().log() + logit).expand_as(lse))


@pytest.mark.parametrize("kind", KINDS)
def test_strides_past_32_bits(kind):
    """Row stride 2^30 elements: row 2 starts at 2^31. Pages without rows stay unused."""
    q, k, v = make_qkv(1, 3, 3, (1, 1), dtype=torch.bfloat16)
    storage = torch.empty(2**31 + 4 * 64, dtype=torch.bfloat16)
    far = [
        torch.as_strided(storage, (1, 3, 1, 64), (0, 2**30, 0, 1), storage_offset=64 * i)
        for i in range(3)
    ]
    for view, values in zip(far, (q, k, v), strict=True):
        view.copy_(values)
    check(kind, *far)


# ---- The same bits, whatever the threads ---------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_threads_do_not_change_bits(isa, num_threads, kind, dtype):
    q, k, v = make_qkv(2, 300, 520, (4, 2), dtype=dtype)
    attend, _ = case_of(kind, q, k)
    torch.set_num_threads(1)
    out, lse = attend(q, k, v)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        again = attend(q, k, v)
        assert torch.equal(again[0], out)
        assert torch.equal(again[1], lse)


def test_threads_do_not_change_mixed_calls(isa, num_threads):
    q, k, v = make_qkv(2, 300, 520, (12, 2), dtype=torch.bfloat16)
    torch.set_num_threads(1)
    out, lse = minference.prefill_attn(q, k, v, MIXED)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        again = minference.prefill_attn(q, k, v, MIXED)
        assert torch.equal(again[0], out)
        assert torch.equal(again[1], lse)


# ---- Anything ------------------------------------------------------------------------------------


@st.composite
def prefill_calls(draw: st.DrawFn) -> tuple[Problem, list[Pattern]]:
    problem = draw(problems())
    one = patterns(problem.seqlen_q, problem.seqlen_k)
    return problem, draw(st.lists(one, min_size=problem.num_heads_q, max_size=problem.num_heads_q))


@hypothesis.given(prefill_calls())
def test_any_prefill_call(isa, call):
    problem, head_patterns = call
    check_patterns(head_patterns, *problem.tensors())


@hypothesis.given(st.data())
def test_any_vertical_slash_index(isa, data):
    problem = data.draw(problems())
    vertical, slash = data.draw(
        vertical_slash_indices(problem.batch, problem.num_heads_q, problem.seqlen_k)
    )
    q, k, v = problem.tensors()
    mask = reference.vertical_slash_masks(problem.seqlen_q, problem.seqlen_k, vertical, slash)
    got = minference.vs_sparse_attn(q, k, v, vertical, slash)
    reference.assert_attention(got, q, k, v, mask)


@hypothesis.given(st.data())
def test_any_block_index(isa, data):
    problem = data.draw(problems())
    block_index = data.draw(block_indices(problem))
    q, k, v = problem.tensors()
    mask = reference.block_sparse_masks(problem.seqlen_q, problem.seqlen_k, block_index)
    got = minference.block_index_attn(q, k, v, block_index)
    reference.assert_attention(got, q, k, v, mask)
