# SPDX-License-Identifier: Apache-2.0
"""NaN and infinity reach only their own row of q, or the rows that attend their key."""

from __future__ import annotations

import minference
import pytest
import reference
import torch
from minference import AShape, BlockSparse, Dense, TriShape, VerticalSlash
from strategies import DTYPES, Attend, make_qkv, random_block_index, random_index
from torch import Tensor

POISON = {"nan": torch.nan, "inf": torch.inf, "-inf": -torch.inf}
PATTERNS = [Dense(), AShape(9, 50), TriShape(3, 40, 70), VerticalSlash(40, 110), BlockSparse(3)]

pytestmark = [
    pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES),
    pytest.mark.parametrize("poison", POISON.values(), ids=POISON),
]


def assert_only_rows_change(
    attend: Attend, clean: list[Tensor], poisoned: list[Tensor], changed: Tensor
) -> None:
    """Check that only ``changed`` rows, ``[batch, num_heads_q, seqlen_q]``, change their bits."""
    out, lse = attend(*clean)
    assert out.isfinite().all()
    new_out, new_lse = attend(*poisoned)
    kept = ~changed.to(out.device)
    assert torch.equal(new_out.transpose(1, 2)[kept], out.transpose(1, 2)[kept])
    assert torch.equal(new_lse[kept], lse[kept])


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("row", [0, 31, 64, 100])
def test_in_a_row_of_q(device, isa, dtype, poison, pattern, row):
    """Only that row of that head becomes NaN. These rows are not used to estimate."""
    q, k, v = make_qkv(2, 200, 300, dtype=dtype, device=device)
    bad_q = q.clone()
    bad_q[1, row, 2, 5] = poison
    changed = torch.zeros(2, 4, 200, dtype=torch.bool)
    changed[1, 2, row] = True

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return minference.prefill_attn(q, k, v, pattern)

    if isinstance(pattern, BlockSparse):  # The mean of row's block changes, so its selection may.
        block_index = minference.estimate_blocks(q, k, pattern.top_k)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            return minference.block_index_attn(q, k, v, block_index)

    assert_only_rows_change(attend, [q, k, v], [bad_q, k, v], changed)
    assert not attend(bad_q, k, v)[0][1, row, 2].isfinite().all()


def sparse_case(kind: str, q: Tensor, k: Tensor) -> tuple[Attend, Tensor]:
    """Return an op that takes indices, and its mask. Keys from 230 on, and others, are unused."""
    batch, seqlen_q, num_heads_q, _ = q.shape
    seqlen_k = k.shape[1]
    if kind == "vertical_slash":
        vertical = random_index(batch, num_heads_q, 230, most=20).to(q.device)
        slash = torch.tensor([75, 140], dtype=torch.int32, device=q.device)
        slash = slash.expand(batch, num_heads_q, -1)
        mask = reference.vertical_slash_masks(seqlen_q, seqlen_k, vertical, slash)
        return lambda q, k, v: minference.vs_sparse_attn(q, k, v, vertical, slash), mask
    blocks = random_block_index(batch, num_heads_q, seqlen_q, 230).to(q.device)
    mask = reference.block_sparse_masks(seqlen_q, seqlen_k, blocks)
    return lambda q, k, v: minference.block_index_attn(q, k, v, blocks), mask


@pytest.mark.parametrize("kind", ["vertical_slash", "block_sparse"])
def test_in_keys_that_no_row_attends(device, isa, dtype, poison, kind):
    q, k, v = make_qkv(1, 70, 300, (2, 1), dtype=dtype, device=device)
    attend, mask = sparse_case(kind, q, k)
    unattended = ~mask.any(dim=(0, 1, 2)).to(device)
    assert unattended.sum() > 20
    bad_k, bad_v = k.clone(), v.clone()
    bad_k[:, unattended] = poison
    bad_v[:, unattended] = poison
    nothing = torch.zeros(mask.shape[:3], dtype=torch.bool)
    assert_only_rows_change(attend, [q, k, v], [q, bad_k, bad_v], nothing)


@pytest.mark.parametrize("kind", ["dense", "a_shape", "vertical_slash", "block_sparse"])
@pytest.mark.parametrize("key", [0, 63, 64, 130, 199, 299])
@pytest.mark.parametrize("where", ["k", "v"])
def test_in_a_key(device, isa, dtype, poison, kind, key, where):
    """Rows that do not attend the key keep their bits: earlier rows, and rows of other heads."""
    q, k, v = make_qkv(1, 200, 300, (4, 2), head_dim_v=72, dtype=dtype, device=device)
    if kind == "dense":
        mask = reference.dense_mask(200, 300).expand(1, 4, -1, -1)
        attend: Attend = lambda q, k, v: minference.prefill_attn(q, k, v, Dense())  # noqa: E731
    elif kind == "a_shape":
        mask = reference.a_shape_mask(200, 300, 9, 50).expand(1, 4, -1, -1)
        attend = lambda q, k, v: minference.prefill_attn(q, k, v, AShape(9, 50))  # noqa: E731
    else:
        attend, mask = sparse_case(kind, q, k)
    bad_k, bad_v = k.clone(), v.clone()
    (bad_k if where == "k" else bad_v)[0, key, 1, -1] = poison
    changed = mask[..., key].clone()
    changed[:, :2] = False  # KV head 1 serves query heads 2 and 3.
    assert_only_rows_change(attend, [q, k, v], [q, bad_k, bad_v], changed)
