# SPDX-License-Identifier: Apache-2.0
"""Compares with stored outputs of the original MInference's own kernels (golden/README.md)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import minference
import numpy as np
import pytest
import reference
import torch
from torch import Tensor

# Their kernels round p, out, and q * softmax_scale * log2(e) to 16 bits.
TOLERANCE = {torch.float16: 1.2e-3, torch.bfloat16: 1.1e-2}


def load(name: str) -> SimpleNamespace:
    """Load tensors in our layout: ``[batch, seqlen, num_heads, head_dim]``, slashes ascending."""
    golden = SimpleNamespace()
    with np.load(Path(__file__).parent / "golden" / f"{name}.npz") as stored:
        for key in stored:
            setattr(golden, key, torch.from_numpy(stored[key]))
    for key in ("q", "k", "v", "out"):
        value: Tensor = getattr(golden, key)
        value = value.view(torch.bfloat16) if value.dtype == torch.uint16 else value
        setattr(golden, key, value.transpose(1, 2))
    bits = np.unpackbits(golden.mask.numpy(), axis=-1)[..., : golden.k.shape[1]]
    golden.mask = torch.from_numpy(bits).bool()
    if hasattr(golden, "slash_index"):
        golden.slash_index = golden.slash_index.flip(-1)
    return golden


@pytest.mark.parametrize(
    "name", ["a_shape", "block_sparse", "vertical_slash_given", "vertical_slash_estimated"]
)
def test_oracle_agrees_with_their_kernels(name):
    """Under their mask, the float64 definition and its bounds hold for their output too."""
    golden = load(name)
    q, k, v, mask = golden.q, golden.k, golden.v, golden.mask
    want, _, bound = reference.attention_and_bound(q, k, v, mask)
    assert (golden.out.double() - want).abs().max() <= TOLERANCE[q.dtype]
    reference.assert_within(golden.out, want, bound)


def assert_matches(golden: SimpleNamespace, out: Tensor) -> None:
    """Check ours as closely as theirs against exact attention; they may err in opposite ways."""
    out, tolerance = out.cpu().double(), TOLERANCE[golden.q.dtype]
    want, _ = reference.attention_float64(golden.q, golden.k, golden.v, golden.mask)
    assert (out - want).abs().max() <= tolerance
    assert (out - golden.out.double()).abs().max() <= 2 * tolerance


def test_a_shape(device, isa):
    golden = load("a_shape")
    seqlen = golden.q.shape[1]
    sink, window = int(golden.sink), int(golden.window)
    mask = reference.a_shape_mask(seqlen, seqlen, sink, window)
    assert torch.equal(mask.expand_as(golden.mask), golden.mask)

    q, k, v = (x.to(device) for x in (golden.q, golden.k, golden.v))
    assert_matches(golden, minference.a_shape_attn(q, k, v, sink, window))


def visible_blocks(golden: SimpleNamespace) -> Tensor:
    """Their list without blocks that the row block cannot see, and without the padding's rows."""
    block_index = golden.block_index[:, :, : reference.row_blocks(golden.q.shape[1])]
    return torch.where(block_index <= torch.arange(block_index.shape[2])[:, None], block_index, -1)


def test_block_sparse_attention(device, isa):
    golden = load("block_sparse")
    block_index = visible_blocks(golden)
    seqlen = golden.q.shape[1]
    mask = reference.block_sparse_masks(seqlen, seqlen, block_index)
    assert torch.equal(mask, golden.mask)

    q, k, v = (x.to(device) for x in (golden.q, golden.k, golden.v))
    out, _ = minference.block_index_attn(q, k, v, block_index.to(device))
    assert_matches(golden, out)


def test_block_sparse_estimate(device, isa):
    """They force no block, we force 0 and the diagonal. Our other blocks are theirs too."""
    golden = load("block_sparse")
    theirs, top_k = visible_blocks(golden)[0, 0], int(golden.top_k)
    ours = minference.estimate_blocks(golden.q.to(device), golden.k.to(device), top_k).cpu()[0, 0]
    want = reference.estimate_blocks(golden.q, golden.k, top_k)
    assert torch.equal(ours, want.block_index[0, 0])
    for r in range(len(ours)):
        chosen = set(ours[r].tolist()) - {-1, 0, r}
        assert chosen <= set(theirs[r].tolist())


def test_vertical_slash_estimate(device, isa):
    """The same columns and distances, except where scores are too close for 16-bit logits.

    They round q k^T to bf16, and again its quotient by sqrt(head_dim): each rounding moves a logit
    by up to 2^-8 of itself, and its share of the probability, through numerator and denominator, by
    twice that.
    """
    golden = load("vertical_slash_estimated")
    vertical_size, slash_size = int(golden.vertical_size), int(golden.slash_size)
    ours = minference.estimate_vs(
        golden.q.to(device), golden.k.to(device), vertical_size, slash_size
    )
    want = reference.estimate_vs(golden.q, golden.k, vertical_size, slash_size)
    largest = reference.scores_float64(golden.q[:, -64:], golden.k).abs().max()
    closeness = 2 * 2 * reference.unit_roundoff(torch.bfloat16) * largest
    for got, theirs, score, forced in (
        (ours[0], golden.vertical_index, want.vertical_score, 30),
        (ours[1], golden.slash_index, want.slash_score, 100),
    ):
        got, theirs = set(got.flatten().tolist()), set(theirs.flatten().tolist())
        assert len(got) == len(theirs)
        cut = min(score[0, 0, index] for index in got if index >= forced)
        for index in got ^ theirs:
            assert abs(score[0, 0, index] - cut) <= closeness * cut
        assert len(got ^ theirs) <= 2  # Neighbours of the cut, among the 20 distances not forced.


@pytest.mark.parametrize("name", ["vertical_slash_given", "vertical_slash_estimated"])
def test_vertical_slash_is_no_further_from_dense(device, isa, name):
    """We round runs at their far end, they round block by block: the masks differ a little."""
    golden = load(name)
    q, k, v, vertical, slash = (
        x.to(device)
        for x in (golden.q, golden.k, golden.v, golden.vertical_index, golden.slash_index)
    )
    ours = minference.vs_sparse_attn(q, k, v, vertical, slash)
    seqlen = q.shape[1]
    mask = reference.vertical_slash_masks(seqlen, seqlen, vertical, slash)
    reference.assert_attention(ours, q, k, v, mask)

    dense, _ = reference.attention_float64(
        golden.q, golden.k, golden.v, reference.dense_mask(seqlen, seqlen)
    )
    error = (ours[0].cpu().double() - dense).norm()
    their_error = (golden.out.double() - dense).norm()
    assert error <= their_error
