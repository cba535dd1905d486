# SPDX-License-Identifier: Apache-2.0
"""Stage 1: the selected indices, against float64 scores.

Every entry whose score is further from the cut than rounding can move it must be on the right side.
In tests with planted structure all entries are, so there the sets must be equal.
"""

from __future__ import annotations

import hypothesis
import minference
import pytest
import reference
import torch
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, SHAPES, make_qkv, problems
from torch import Tensor

SINK, LOCAL = 30, 100


def score_tolerance(q: Tensor, k: Tensor) -> float:
    """Relative error of an fp32 score sum: of the probabilities, and of a sum of 64 of them."""
    mask = reference.dense_mask(q.shape[1], k.shape[1])
    p_error = reference.probability_error(q.cpu(), k.cpu(), mask).max()
    return float(p_error + reference.fp32_sum_error(64) + reference.fp32_sum_error(k.shape[1]))


def assert_selected(
    got: Tensor, score: Tensor, forced: Tensor, size: int, tolerance: float | Tensor
) -> None:
    """Check ``got``, one head's list; each score, or all, may be off by ``tolerance``."""
    got = got.cpu()
    kept = got[got >= 0]
    allowed = score > -torch.inf
    assert got.dtype == torch.int32
    assert len(got) == size
    assert len(kept) == min(size, int(allowed.sum()))
    assert torch.all(got[len(kept) :] == -1)
    assert torch.all(kept.diff() > 0)

    is_kept = torch.zeros_like(forced).index_fill(0, kept.long(), value=True)
    assert torch.all(allowed[is_kept])
    # Either all forced ones fit, or nothing else is kept.
    assert torch.all(is_kept[forced]) or torch.all(forced[is_kept])
    chosen, left = is_kept & ~forced, ~is_kept & allowed
    if chosen.any() and left.any():
        low, high = score - tolerance, score + tolerance
        assert high[chosen].min() >= low[left].max(), (
            f"kept {kept[chosen[kept.long()]].tolist()}, but the score of "
            f"{int(score.masked_fill(~left, -torch.inf).argmax())} is larger than that of "
            f"{int(score.masked_fill(~chosen, torch.inf).argmin())}"
        )


def check_vs(q: Tensor, k: Tensor, vertical_size: int, slash_size: int, **options: int) -> None:
    want = reference.estimate_vs(q.cpu(), k.cpu(), vertical_size, slash_size, **options)
    got = minference.estimate_vs(q, k, vertical_size, slash_size, **options)
    relative = score_tolerance(q, k)
    index = torch.arange(k.shape[1])
    parts = (
        (got[0], want.vertical_index, want.vertical_score, options.get("sink", SINK)),
        (got[1], want.slash_index, want.slash_score, options.get("local", LOCAL)),
    )
    for part, want_index, score, num_forced in parts:
        assert part.shape == want_index.shape
        for b in range(q.shape[0]):
            for h in range(q.shape[2]):
                assert_selected(
                    part[b, h],
                    score[b, h],
                    index < num_forced,
                    want_index.shape[-1],
                    relative * score[b, h],
                )


def planted_qk(
    seqlen_q: int, seqlen_k: int, dtype: torch.dtype, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Make q and k of 2 heads, and return the 7 columns and 5 distances of each that stand out.

    Even dimensions hold columns: q is 1 there, and k is 1 at the planted columns. Odd dimensions
    hold positions as random signs: key j holds the code of j, and row i the codes of p_i - d for
    each planted distance d. At softmax_scale 0.08 all planted entries have a logit near 10, the
    rest near 0.
    """
    torch.manual_seed(seed)
    half = 128
    position = reference.positions(seqlen_q, seqlen_k)
    code = torch.randn(seqlen_k, half).sign()
    q = torch.zeros(1, seqlen_q, 2, 2 * half)
    k = torch.zeros(1, seqlen_k, 2, 2 * half)
    columns, distances = [], []
    for head in range(2):
        column = 30 + torch.randperm(seqlen_k - 230)[:7].sort().values
        distance = 100 + torch.randperm(seqlen_k - 300)[:5].sort().values
        q[0, :, head, ::2] = 1.0
        k[0, column, head, ::2] = 1.0
        k[0, :, head, 1::2] = code
        for d in distance.tolist():
            q[0, :, head, 1::2] += code[(position - d).clamp(min=0)]
        columns.append(column)
        distances.append(distance)
    return q.to(dtype), k.to(dtype), torch.stack(columns), torch.stack(distances)


# ---- Vertical-slash ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(700, 700), (64, 1000), (40, 650)], ids=str)
def test_planted_structure_is_found(device, isa, dtype, shape):
    """Exactly the planted columns and distances, on top of the forced ones."""
    q, k, columns, distances = planted_qk(*shape, dtype)
    want = reference.estimate_vs(q, k, SINK + 7, LOCAL + 5, softmax_scale=0.08)
    vertical, slash = minference.estimate_vs(
        q.to(device), k.to(device), SINK + 7, LOCAL + 5, softmax_scale=0.08
    )
    assert torch.equal(vertical.cpu(), want.vertical_index)
    assert torch.equal(slash.cpu(), want.slash_index)
    assert torch.equal(vertical[0, :, SINK:].cpu().long(), columns)
    assert torch.equal(slash[0, :, LOCAL:].cpu().long(), distances)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("sizes", [(0, 0), (40, 110), (10_000, 10_000)], ids=str)
def test_vs_shapes(device, isa, dtype, shape, sizes):
    check_vs(*make_qkv(2, *shape, dtype=dtype, device=device)[:2], *sizes)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("head_dim", [8, 64, 72, 80, 96, 128, 192, 256])
def test_vs_head_dims(device, isa, dtype, head_dim):
    check_vs(*make_qkv(1, 90, 400, head_dim=head_dim, dtype=dtype, device=device)[:2], 50, 130)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_heads", [(3, 3), (6, 2), (4, 1)], ids=str)
def test_vs_layouts_and_heads(device, isa, dtype, layout, num_heads):
    q, k, _ = make_qkv(2, 90, 300, num_heads, dtype=dtype, layout=layout, device=device)
    check_vs(q, k, 50, 130)


@pytest.mark.parametrize("last_q", [1, 2, 17, 63, 64])
@pytest.mark.parametrize("shape", [(200, 200), (20, 300), (1, 150)], ids=str)
def test_last_q(device, isa, last_q, shape):
    check_vs(*make_qkv(1, *shape, device=device)[:2], 50, 120, last_q=last_q)


@pytest.mark.parametrize("sink", [0, 1, 50, 400])
@pytest.mark.parametrize("local", [0, 1, 64, 400])
def test_forced_entries(device, isa, sink, local):
    q, k, _ = make_qkv(1, 200, 300, device=device)
    check_vs(q, k, 40, 60, sink=sink, local=local)
    check_vs(q, k, 0, 0, sink=sink, local=local)


@pytest.mark.parametrize("vertical_size", [0, 1, 29, 30, 31, 299, 300, 301])
def test_sizes_are_clamped(device, vertical_size):
    """A size is clamped to at least the forced entries, and at most all."""
    q, k, _ = make_qkv(1, 300, 300, device=device)
    vertical, slash = minference.estimate_vs(q, k, vertical_size, vertical_size)
    assert vertical.shape[-1] == min(300, max(vertical_size, 30))
    assert slash.shape[-1] == min(300, max(vertical_size, 100))
    assert torch.all(vertical[..., :30] == torch.arange(30, device=device))
    assert torch.all(slash[..., :100] == torch.arange(100, device=device))


def test_ties_go_to_the_smaller_index(device, isa):
    """One uniform row: every column and every distance scores 1 / seqlen_k."""
    q = torch.zeros(1, 1, 2, 64, device=device)
    k = torch.zeros(1, 500, 2, 64, device=device)
    vertical, slash = minference.estimate_vs(q, k, 77, 133)
    assert torch.all(vertical == torch.arange(77, device=device))
    assert torch.all(slash == torch.arange(133, device=device))


def test_equal_keys_tie(device, isa):
    """Three keys score equally and two fit: the last one must lose, wherever they are."""
    q, k, _ = make_qkv(1, 64, 500, (1, 1), device=device)
    k[:, [100, 257, 431]] = 3 * q[:, -1:].sign()
    vertical, _ = minference.estimate_vs(q[:, -1:], k, 32, 100, softmax_scale=1.0)
    assert vertical[0, 0, 30:].tolist() == [100, 257]


@pytest.mark.parametrize("vertical_p", [0.01, 0.3, 0.6, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("slash_p", [0.3, 0.9, 1.0])
def test_mass_budget(device, isa, vertical_p, slash_p):
    """The fewest entries that reach the budget, forced ones included; then -1."""
    q, k, _ = make_qkv(1, 100, 400, (4, 2), device=device)
    options = {"vertical_p": vertical_p, "slash_p": slash_p, "sink": 4, "local": 6}
    want = reference.estimate_vs(q.cpu(), k.cpu(), 300, 350, **options)
    got = minference.estimate_vs(q, k, 300, 350, **options)
    tolerance = score_tolerance(q, k)
    parts = (
        (got[0], want.vertical_index, want.vertical_score, 4, vertical_p),
        (got[1], want.slash_index, want.slash_score, 6, slash_p),
    )
    for part, want_index, score, num_forced, mass in parts:
        for h in range(4):
            count, want_count = (int((x[0, h] >= 0).sum()) for x in (part, want_index))
            assert count == want_count
            forced = torch.arange(400) < num_forced
            assert torch.all(part[0, h, count:] == -1)
            assert_selected(part[0, h, :count], score[0, h], forced, count, tolerance)
            if num_forced < count < part.shape[-1]:  # Reached, but not without the last.
                kept = score[0, h, part[0, h, :count].long().cpu()]
                assert kept.sum() >= (mass - tolerance) * score[0, h].sum()
                dropped = kept[num_forced:].min()
                assert kept.sum() - dropped < (mass + tolerance) * score[0, h].sum()


def test_mass_budget_keeps_what_is_forced(device, isa):
    q, k, _ = make_qkv(1, 100, 400, device=device)
    vertical, slash = minference.estimate_vs(q, k, 60, 150, vertical_p=1e-6, slash_p=1e-6)
    assert torch.all(vertical[..., :30] == torch.arange(30, device=device))
    assert torch.all(slash[..., :100] == torch.arange(100, device=device))
    assert torch.all(vertical[..., 30:] == -1)
    assert torch.all(slash[..., 100:] == -1)


def test_mass_budget_stays_within_the_size(device, isa):
    q, k, _ = make_qkv(1, 100, 400, device=device)
    capped = minference.estimate_vs(q, k, 60, 150, vertical_p=0.999999, slash_p=0.999999)
    plain = minference.estimate_vs(q, k, 60, 150)
    assert torch.equal(capped[0], plain[0])
    assert torch.equal(capped[1], plain[1])


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_rows_that_are_not_finite_are_ignored(device, isa, poison):
    """NaN in one of the last rows: the other rows decide as if it were not there."""
    q, k, _, _ = planted_qk(64, 700, torch.float32)
    q[:, 20] = poison
    want = reference.estimate_vs(q, k, 37, 105, softmax_scale=0.08)
    got = minference.estimate_vs(q.to(device), k.to(device), 37, 105, softmax_scale=0.08)
    assert torch.equal(got[0].cpu(), want.vertical_index)
    assert torch.equal(got[1].cpu(), want.slash_index)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("seqlen_k", [4095, 4096, 4097, 4160, 8191, 8200])
def test_vs_long_keys(device, isa, dtype, seqlen_k):
    """Sums over keys are made in chunks of 4096, and distances cross their borders."""
    for seqlen_q, last_q in ((64, 64), (30, 64), (70, 5)):
        q, k, _ = make_qkv(1, seqlen_q, seqlen_k, (2, 1), dtype=dtype, device=device)
        check_vs(q, k, 200, 300, last_q=last_q)
        # Tests the scores themselves, where selection shows them best: at the far end.
        check_vs(q, k, seqlen_k - 100, seqlen_k - 100, last_q=last_q)


def test_vs_many_heads_and_keys(device, isa):
    """More heads x keys than fit work memory, and KV groups larger than are processed at once."""
    q, k, _ = make_qkv(2, 8, 30_000, (12, 2), head_dim=16, device=device)
    check_vs(q, k, 100, 200, last_q=8)


def test_vs_threads_do_not_change_bits(isa, num_threads):
    q, k, _ = make_qkv(2, 300, 9000, (4, 2), dtype=torch.bfloat16)
    torch.set_num_threads(1)
    want = minference.estimate_vs(q, k, 300, 500)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        got = minference.estimate_vs(q, k, 300, 500)
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


@hypothesis.given(problems(), st.integers(0, 350), st.integers(0, 350), st.integers(1, 64))
def test_any_vs_estimate(isa, problem, vertical_size, slash_size, last_q):
    q, k, _ = problem.tensors()
    check_vs(q, k, vertical_size, slash_size, last_q=last_q)


# ---- Block-sparse --------------------------------------------------------------------------------


def check_blocks(q: Tensor, k: Tensor, top_k: int) -> None:
    want = reference.estimate_blocks(q.cpu(), k.cpu(), top_k)
    got = minference.estimate_blocks(q, k, top_k)
    assert got.shape == want.block_index.shape
    # Means are sums of 64 rows, then a product of head_dim terms with magnitude sum_d |q_d k_d|.
    mean_q = reference.block_means(q.cpu().abs())
    mean_k = reference.block_means(k.cpu().abs())
    magnitude = mean_q @ mean_k.repeat_interleave(q.shape[2] // k.shape[2], dim=1).mT
    share = 2 * reference.fp32_sum_error(64) + reference.fp32_sum_error(q.shape[-1])
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for r in range(got.shape[2]):
                assert_selected(
                    got[b, h, r],
                    want.score[b, h, r],
                    want.forced[r],
                    top_k,
                    share * magnitude[b, h, r],
                )


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize(
    "shape", [*SHAPES.values(), (640, 640), (300, 900), (128, 1000), (65, 640)], ids=str
)
@pytest.mark.parametrize("top_k", [1, 2, 5, 20])
def test_block_shapes(device, isa, dtype, shape, top_k):
    check_blocks(*make_qkv(1, *shape, dtype=dtype, device=device)[:2], top_k)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("head_dim", [8, 64, 72, 80, 96, 128, 192, 256])
def test_block_head_dims(device, isa, dtype, head_dim):
    q, k, _ = make_qkv(1, 130, 700, head_dim=head_dim, dtype=dtype, device=device)
    check_blocks(q, k, 5)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_heads", [(3, 3), (6, 2), (4, 1)], ids=str)
def test_block_layouts_and_heads(device, isa, dtype, layout, num_heads):
    q, k, _ = make_qkv(2, 200, 500, num_heads, dtype=dtype, layout=layout, device=device)
    check_blocks(q, k, 4)


@pytest.mark.parametrize("shape", [(2048, 2048), (2100, 2200), (70, 4200)], ids=str)
def test_many_blocks(device, isa, shape):
    """More row blocks than are scored at once, and more key blocks than are pooled at once."""
    check_blocks(*make_qkv(1, *shape, (2, 1), device=device)[:2], 9)


def test_many_heads_and_blocks(device, isa):
    """More pooled keys than fit work memory."""
    q, k, _ = make_qkv(20, 70, 16_400, (2, 1), 256, kv_layout="shared_batch", device=device)
    check_blocks(q, k, 9)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_planted_blocks_are_found(device, isa, dtype):
    """Each row block has three key blocks that score far above the rest."""
    torch.manual_seed(0)
    seqlen, top_k = 1024, 6
    code = torch.randn(16, 64).sign()
    k = code.repeat_interleave(64, dim=0)[None, :, None].clone()
    planted = [sorted(torch.randperm(max(r - 1, 1))[:3].tolist()) for r in range(16)]
    q = torch.stack([code[blocks].sum(dim=0) for blocks in planted])
    q = q.repeat_interleave(64, dim=0)[None, :, None].clone()
    want = reference.estimate_blocks(q, k, top_k).block_index
    got = minference.estimate_blocks(q.to(device, dtype), k.to(device, dtype), top_k).cpu()
    for r in range(6, 16):  # Earlier row blocks see too few blocks for a choice.
        assert {0, r, *planted[r]} <= set(got[0, 0, r].tolist())
        assert {0, r, *planted[r]} <= set(want[0, 0, r].tolist())
    assert got.shape == (1, 1, seqlen // 64, top_k)


@pytest.mark.parametrize("shape", [(640, 640), (600, 655), (64, 640), (100, 639)], ids=str)
def test_forced_blocks(device, isa, shape):
    """Block 0 and the diagonal are kept although every other block scores higher."""
    seqlen_q, seqlen_k = shape
    q = torch.ones(1, seqlen_q, 1, 64, device=device)
    k = torch.ones(1, seqlen_k, 1, 64, device=device)
    for r, forced in enumerate(reference.estimate_blocks(q.cpu(), k.cpu(), 3).forced):
        low = forced.repeat_interleave(64)[:seqlen_k].to(device)
        k[0, :, 0] = torch.where(low[:, None], -1.0, 1.0)
        got = minference.estimate_blocks(q, k, 3)[0, 0, r]
        assert set(forced.nonzero().flatten().tolist()) <= set(got.tolist())


def test_too_few_blocks_for_the_forced_ones(device, isa):
    """Forced blocks are equal, so the smaller ones are kept."""
    q, k, _ = make_qkv(1, 600, 655, (1, 1), device=device)
    for top_k in (1, 2, 3):
        got = minference.estimate_blocks(q, k, top_k)[0, 0].cpu()
        for r, forced in enumerate(reference.estimate_blocks(q.cpu(), k.cpu(), 1).forced):
            want = forced.nonzero().flatten()[:top_k].tolist()
            assert set(want) <= set(got[r].tolist())


def test_block_ties_go_to_the_smaller_block(device, isa):
    q = torch.zeros(1, 640, 2, 64, device=device)
    got = minference.estimate_blocks(q, q, 4).cpu()
    for r in range(10):
        want = sorted({0, r, *[n for n in range(1, 10) if n < r][: 4 - len({0, r})]})
        assert got[0, 0, r].tolist() == want + [-1] * (4 - len(want))


def test_a_partial_block_averages_its_own_rows(device, isa):
    """The last block has one key: its mean is that key, not 1/64 of it."""
    q = torch.ones(1, 705, 1, 64, device=device)
    k = torch.ones(1, 705, 1, 64, device=device)
    k[:, 64:640] = 0.5
    k[:, 128:192] = 0.75
    k[:, 640:704] = 0.1
    # Row block 11 is one row; its forced blocks are 0 and 11 (and 10 is not: end_r - 64 = 704).
    assert minference.estimate_blocks(q, k, 3)[0, 0, 11].tolist() == [0, 2, 11]
    q[:, 704:] = -1.0  # Changes that row alone: the smallest key wins now.
    assert minference.estimate_blocks(q, k, 3)[0, 0, 11].tolist() == [0, 10, 11]


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("top_k", [12, 1000], ids=["some", "more_than_there_are"])
def test_block_mass_budget(device, isa, top_k, top_p):
    """Per row block, the fewest blocks whose softmax mass reaches top_p, forced ones first."""
    q, k, _ = make_qkv(1, 640, 900, (4, 2), device=device)
    q, k = 4 * q, 4 * k  # Means of 64 are small; this spreads them.
    want = reference.estimate_blocks(q.cpu(), k.cpu(), top_k, top_p=top_p)
    got = minference.estimate_blocks(q, k, top_k, top_p=top_p).cpu()
    assert torch.equal(got, want.block_index)
    visible = torch.arange(6, 16)  # Key blocks that each row block sees.
    # The budget does cut something.
    assert ((got >= 0).sum(dim=-1) < visible.clamp(max=top_k)).any()


def test_blocks_threads_do_not_change_bits(isa, num_threads):
    q, k, _ = make_qkv(2, 600, 1500, (4, 2), dtype=torch.bfloat16)
    torch.set_num_threads(1)
    want = minference.estimate_blocks(q, k, 7)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert torch.equal(minference.estimate_blocks(q, k, 7), want)


@hypothesis.given(problems(max_seqlen=700), st.integers(1, 14))
def test_any_block_estimate(isa, problem, top_k):
    q, k, _ = problem.tensors()
    check_blocks(q, k, top_k)
