# SPDX-License-Identifier: Apache-2.0
"""merge_attn: two disjoint key sets give the result of one call over their union."""

from __future__ import annotations

import hypothesis
import minference
import pytest
import reference
import torch
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, make_qkv, make_tensor
from torch import Tensor

Part = tuple[Tensor, Tensor]


def make_part(
    batch: int, seqlen_q: int, num_heads_q: int, head_dim: int, **options: object
) -> Part:
    """Draw any out, and an lse of which a quarter is -inf."""
    out = make_tensor(batch, seqlen_q, num_heads_q, head_dim, **options)
    lse = 5 * torch.randn(batch, num_heads_q, seqlen_q)
    lse[torch.rand_like(lse) < 0.25] = -torch.inf
    return out, lse.to(out.device)


def check(a: Part, b: Part) -> None:
    out, lse = minference.merge_attn(*a, *b)
    a_cpu, b_cpu = [tuple(x.cpu() for x in part) for part in (a, b)]
    want_out, want_lse = reference.merge_float64(*a_cpu, *b_cpu)
    assert out.dtype == a[0].dtype
    reference.assert_lse_close(lse.cpu(), want_lse)

    # The result is rounded once; weights are exp of an fp32 difference of two lse, each rounded
    # once.
    magnitude, _ = reference.merge_float64(a_cpu[0].abs(), a_cpu[1], b_cpu[0].abs(), b_cpu[1])
    largest = want_lse.masked_fill(want_lse.isinf(), 0.0).abs().max()
    share = reference.unit_roundoff(out.dtype) + reference.UNIT_ROUNDOFF_FP32 * (4 * largest + 8)
    underflow = torch.finfo(out.dtype).smallest_normal * reference.unit_roundoff(out.dtype)
    reference.assert_within(out.cpu(), want_out, share * magnitude + underflow)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("head_dim", [8, 64, 80, 256])
def test_matches_float64(device, isa, dtype, layout, head_dim):
    torch.manual_seed(0)
    size = (2, 70, 3, head_dim)
    check(
        make_part(*size, dtype=dtype, layout=layout, device=device),
        make_part(*size, dtype=dtype, device=device),
    )


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_halves_of_the_keys_merge_to_the_whole(device, isa, dtype):
    """Two column sets without a common key; rows before 100 are empty in the second."""
    q, k, v = make_qkv(2, 200, 200, dtype=dtype, device=device)
    none = torch.empty(2, q.shape[2], 0, dtype=torch.int32, device=device)
    parts = []
    for begin, end in ((0, 100), (100, 200)):
        columns = torch.arange(begin, end, dtype=torch.int32, device=device)
        parts.append(minference.vs_sparse_attn(q, k, v, columns.expand(2, q.shape[2], -1), none))
    check(*parts)

    out, lse = minference.merge_attn(*parts[0], *parts[1])
    mask = reference.dense_mask(200, 200)
    want_out, want_lse, bound = reference.attention_and_bound(q.cpu(), k.cpu(), v.cpu(), mask)
    reference.assert_lse_close(lse.cpu(), want_lse)
    # Each part is rounded to the dtype, and so is the merged result.
    reference.assert_within(out.cpu(), want_out, 2 * bound)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_a_part_that_attended_nothing(device, isa, dtype):
    """lse = -inf: the result is the other part, bit for bit, whatever this part's out holds."""
    torch.manual_seed(0)
    out_a = torch.randn(2, 30, 4, 64, dtype=torch.float32).to(device, dtype)
    lse_a = torch.randn(2, 4, 30, device=device)
    nothing = torch.full_like(lse_a, -torch.inf)
    for garbage in (0.0, torch.nan, torch.inf):
        out_b = torch.full_like(out_a, garbage)
        for merged in (
            minference.merge_attn(out_a, lse_a, out_b, nothing),
            minference.merge_attn(out_b, nothing, out_a, lse_a),
        ):
            assert torch.equal(merged[0], out_a)
            assert torch.equal(merged[1], lse_a)
        out, lse = minference.merge_attn(out_b, nothing, out_b, nothing)
        assert torch.all(out == 0)
        assert torch.all(lse == -torch.inf)


def test_far_apart(device, isa):
    """lse that differ by more than exp can hold: the larger part wins, without overflow."""
    torch.manual_seed(0)
    out_a, out_b = torch.randn(2, 1, 4, 2, 64, device=device)
    for gap in (100.0, 1e4, 3e38):
        lse_a = torch.full((1, 2, 4), gap, device=device)
        out, lse = minference.merge_attn(out_a, lse_a, out_b, torch.zeros_like(lse_a))
        assert torch.equal(out, out_a)
        assert torch.equal(lse, lse_a)


@hypothesis.given(
    st.integers(1, 3),
    st.integers(1, 130),
    st.integers(1, 5),
    st.integers(1, 32),
    st.sampled_from(list(DTYPES.values())),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2**31),
)
def test_any_parts(isa, batch, seqlen_q, num_heads_q, head_dim_8, dtype, layout, seed):
    torch.manual_seed(seed)
    size = (batch, seqlen_q, num_heads_q, 8 * head_dim_8)
    check(make_part(*size, dtype=dtype, layout=layout), make_part(*size, dtype=dtype))
