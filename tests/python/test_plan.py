# SPDX-License-Identifier: Apache-2.0
"""Stage 2 and key_tiles.h: exactly which keys each row attends, read off the output.

With q = 0 each attended key weighs 1 / count, and one-hot rows of v say which keys those are. So a
call's mask can be compared exactly, and a key that counts twice shows too.
"""

from __future__ import annotations

import itertools

import hypothesis
import minference
import pytest
import reference
import torch
from hypothesis import strategies as st
from minference import AShape, Dense, TriShape
from strategies import (
    SHAPES,
    Attend,
    block_indices,
    distances,
    index_list,
    problems,
    random_index,
    static_mask,
    vertical_slash_indices,
)
from torch import Tensor

PROBE_DIM = 256  # Number of keys that one probe can tell apart: the largest head_dim.


def weights_of(attend: Attend, seqlen_q: int, seqlen_k: int, num_heads: tuple[int, int]) -> Tensor:
    """How often ``attend`` counts each key, ``[num_heads_q, seqlen_q, seqlen_k]``: 0 or 1.

    Batch entry c of the probe has v[256 c + t] = one-hot(t), so ``attend`` must treat all entries
    alike.
    """
    num_probes = -(-seqlen_k // PROBE_DIM)
    num_heads_q, num_heads_kv = num_heads
    q = torch.zeros(num_probes, seqlen_q, num_heads_q, PROBE_DIM)
    k = torch.ones(1, 1, 1, PROBE_DIM).expand(num_probes, seqlen_k, num_heads_kv, -1)
    one_hot = torch.eye(num_probes * PROBE_DIM)[:seqlen_k].unflatten(1, (num_probes, PROBE_DIM))
    v = one_hot.movedim(1, 0)[:, :, None].expand(-1, -1, num_heads_kv, -1)

    out, lse = attend(q, k, v)
    counts = lse.exp()[0, :, :, None]  # The same in every probe.
    assert torch.equal(lse, lse[:1].expand_as(lse))
    weights = out.permute(2, 1, 0, 3).flatten(2)[..., :seqlen_k] * counts
    assert torch.allclose(weights, weights.round(), atol=1e-4)
    assert torch.allclose(counts[..., 0], weights.sum(dim=-1), rtol=1e-4)
    return weights.round().int()


def assert_attends(
    attend: Attend, mask: Tensor, num_heads: tuple[int, int] = (1, 1), what: str = ""
) -> None:
    """``mask``: ``[num_heads_q, seqlen_q, seqlen_k]``."""
    weights = weights_of(attend, *mask.shape[1:], num_heads)
    wrong = weights != mask
    if wrong.any():
        head, row, key = wrong.nonzero()[0].tolist()
        raise AssertionError(
            f"{what}: {int(wrong.sum())} pairs are off; head {head}, row {row} counts key {key} "
            f"{int(weights[head, row, key])} times, want {int(mask[head, row, key])}"
        )


def assert_vertical_slash(
    vertical: Tensor, slash: Tensor, seqlen_q: int, seqlen_k: int, num_heads: tuple[int, int]
) -> None:
    """Lists of one batch entry, ``[1, num_heads_q, any]``."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        probes = q.shape[0]
        return minference.vs_sparse_attn(
            q, k, v, vertical.expand(probes, -1, -1), slash.expand(probes, -1, -1)
        )

    mask = reference.vertical_slash_masks(seqlen_q, seqlen_k, vertical, slash)[0]
    what = f"vertical {vertical.tolist()}, slash {slash.tolist()}"
    assert_attends(attend, mask, num_heads, what)


def one_head(*heads: list[int]) -> list[Tensor]:
    return [index_list([head], 1, 1) for head in heads]


# ---- Runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slash", "runs"),
    [
        ([], []),
        ([0], [(0, 64)]),
        ([5], [(5, 69)]),
        ([0, 1], [(0, 128)]),  # 65 wide, rounded.
        ([0, 64], [(0, 128)]),  # Touching.
        ([0, 65], [(0, 64), (65, 129)]),  # A gap of one key, and nothing to round.
        ([0, 1, 130], [(0, 128), (130, 194)]),  # Rounding stops two short of the next.
        ([0, 1, 128], [(0, 192)]),  # Rounding touches the next.
        ([0, 1, 100], [(0, 192)]),  # Rounding reaches into the next: 164, which is rounded again.
        ([0, 1, 100, 192], [(0, 256)]),  # That in turn reaches one more.
        ([0, 1, 100, 193], [(0, 192), (193, 257)]),
        ([0, 1, 2, 3], [(0, 128)]),
        ([10, 200, 201], [(10, 74), (200, 328)]),
    ],
    ids=str,
)
def test_runs(isa, slash, runs):
    """The rules of merging and rounding, spelled out, against the oracle and the library."""
    vertical, distance = one_head([], slash)
    assert reference.runs_of(distance[0, 0]) == runs
    assert_vertical_slash(vertical, distance, 330, 330, (1, 1))


def distances_touched(slash: list[int], seqlen_k: int) -> set[int]:
    return {t for d in slash for t in range(d, min(d + 64, seqlen_k + 64))}


@hypothesis.given(st.integers(1, 700).flatmap(distances))
def test_runs_cover_the_distances_and_little_more(slash):
    """The oracle's runs hold all distances, in whole disjoint blocks, at most 63 keys more."""
    runs = reference.runs_of(torch.tensor(slash))
    touched = distances_touched(slash, 10**6)
    covered = [t for lo, hi in runs for t in range(lo, hi)]
    assert len(covered) == len(set(covered))
    assert touched <= set(covered)
    for lo, hi in runs:
        assert (hi - lo) % 64 == 0
        assert lo in slash
        # What rounding added past the last touched key of the run.
        assert hi - 1 - max(t for t in touched if lo <= t < hi) <= 63
    assert all(near[1] < far[0] for near, far in itertools.pairwise(runs))


# ---- Masks, key by key ---------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "pattern",
    [
        *(Dense(), AShape(0, 1), AShape(1, 0), AShape(64, 64), AShape(65, 63), AShape(30, 100)),
        *(TriShape(4, 8, 1), TriShape(0, 64, 64), TriShape(70, 30, 65), TriShape(0, 0, 10)),
        *(TriShape(3, 9, 10_000), AShape(10_000, 0), AShape(0, 10_000), AShape(0, 128)),
    ],
    ids=str,
)
def test_shaped_patterns(isa, pattern, shape):
    mask = static_mask(pattern, *shape).expand(2, -1, -1)
    assert_attends(lambda q, k, v: minference.prefill_attn(q, k, v, pattern), mask, (2, 1))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_vertical_slash_shapes(isa, shape):
    seqlen_q, seqlen_k = shape
    torch.manual_seed(0)
    vertical = random_index(1, 6, seqlen_k, most=130)
    slash = random_index(1, 6, seqlen_k, most=5)
    assert_vertical_slash(vertical, slash, seqlen_q, seqlen_k, (6, 2))


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 65, 100])
@pytest.mark.parametrize("num_columns", [0, 1, 63, 64, 65, 200])
def test_columns_beside_runs(isa, offset, num_columns):
    """Columns before, inside, across and after a run, in lists that fill column tiles or do not."""
    seqlen_q, seqlen_k = 150, 150 + offset
    columns = torch.linspace(0, seqlen_k - 1, num_columns).int().unique().tolist()
    for slash in ([], [0], [70], [3, 67, 140], list(range(seqlen_k))):
        assert_vertical_slash(*one_head(columns, slash), seqlen_q, seqlen_k, (1, 1))


@pytest.mark.parametrize("distance", [0, 1, 62, 63, 64, 65, 127, 128, 150, 199])
def test_each_distance(isa, distance):
    """One distance, from the diagonal to past the first key of most row blocks."""
    for seqlen_q in (1, 64, 130, 200):
        assert_vertical_slash(*one_head([], [distance]), seqlen_q, 200, (1, 1))


def test_fill_ends_a_list(isa):
    """-1 fills the end; heads of one call have lists of different lengths, some empty."""
    vertical = index_list([[], [0], list(range(0, 190, 3)), [7, 199]], 1, 4)
    slash = index_list([[0, 64, 128], [], [199], [3]], 1, 4)
    assert_vertical_slash(vertical, slash, 200, 200, (4, 2))


def test_batch_entries_have_their_own_lists(isa):
    torch.manual_seed(0)
    vertical, slash = random_index(3, 2, 200, most=20), random_index(3, 2, 200, most=2)
    mask = reference.vertical_slash_masks(200, 200, vertical, slash)
    q = torch.zeros(3, 200, 2, 64)
    _, lse = minference.vs_sparse_attn(q, q, q, vertical, slash)
    reference.assert_lse_close(lse, mask.sum(dim=-1).double().log())


@hypothesis.given(st.data())
def test_any_vertical_slash_index(isa, data):
    seqlen_q, seqlen_k = sorted((data.draw(st.integers(1, 400)), data.draw(st.integers(1, 400))))
    num_heads_q = data.draw(st.sampled_from([1, 2, 3]))
    vertical, slash = data.draw(vertical_slash_indices(1, num_heads_q, seqlen_k))
    assert_vertical_slash(vertical, slash, seqlen_q, seqlen_k, (num_heads_q, 1))


@hypothesis.given(st.data())
def test_any_block_index(isa, data):
    problem = data.draw(problems())
    block_index = data.draw(block_indices(problem))[:1]
    mask = reference.block_sparse_masks(problem.seqlen_q, problem.seqlen_k, block_index)[0]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return minference.block_index_attn(q, k, v, block_index.expand(q.shape[0], -1, -1, -1))

    assert_attends(attend, mask, problem.num_heads)


def test_block_lists_wider_than_the_keys(isa):
    """A top_k above the number of key blocks only adds fill."""
    block_index = torch.full((1, 2, 4, 9), -1, dtype=torch.int32)
    block_index[..., :4] = torch.arange(4)
    mask = reference.dense_mask(200, 200).expand(2, -1, -1)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return minference.block_index_attn(q, k, v, block_index.expand(q.shape[0], -1, -1, -1))

    assert_attends(attend, mask, (2, 2))
