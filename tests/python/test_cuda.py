# SPDX-License-Identifier: Apache-2.0
"""GPU only: streams, graphs, tensors beyond 2^31 elements. Skipped without a GPU."""

from __future__ import annotations

import minference
import pytest
import reference
import torch
from conftest import DEVICES
from cuda_checks import (
    Call,
    assert_replay_reads_the_inputs_of_the_replay,
    assert_same_bits_every_run,
    assert_work_goes_to_the_current_stream,
)
from strategies import make_qkv
from torch import Tensor

pytestmark = pytest.mark.skipif("cuda" not in DEVICES, reason="needs a GPU")

ESTIMATES: dict[str, Call] = {
    "vertical_slash": lambda q, k: minference.estimate_vs(q, k, 100, 200),
    "by_mass": lambda q, k: minference.estimate_vs(q, k, 100, 200, vertical_p=0.5, slash_p=0.5),
    "blocks": lambda q, k: (minference.estimate_blocks(q, k, 6),),
    "blocks_by_radix": lambda q, k: (minference.estimate_blocks(q, k, 200),),
}


def make_qk(seed: int, seqlen: int = 3000) -> tuple[Tensor, Tensor]:
    return make_qkv(1, seqlen, seqlen, dtype=torch.bfloat16, device="cuda", seed=seed)[:2]


each_estimate = pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)


@each_estimate
def test_graph_replay_reads_the_inputs_of_the_replay(estimate):
    assert_replay_reads_the_inputs_of_the_replay(estimate, make_qk)


@each_estimate
def test_work_goes_to_the_current_stream(estimate):
    assert_work_goes_to_the_current_stream(estimate, make_qk)


@each_estimate
def test_same_bits_every_run(estimate):
    assert_same_bits_every_run(estimate, make_qk(seed=3, seqlen=20_000), runs=10)


def test_keys_beyond_two_to_the_31_elements():
    """The last KV head of 600K keys in 32 heads of 128: offsets of 2.4e9 elements."""
    seqlen, heads = 600_000, 32
    k = torch.zeros(1, seqlen, heads, 128, dtype=torch.bfloat16, device="cuda")
    assert k.numel() > 2**31
    q = torch.ones(1, 64, heads, 128, dtype=torch.bfloat16, device="cuda")
    columns = torch.tensor([31, 70_000, 333_333, 599_000], device="cuda")
    k[0, columns, -1] = 1.0
    vertical, _ = minference.estimate_vs(q, k, 30 + len(columns), 100)
    assert torch.equal(vertical[0, -1, 30:].long(), columns)
    # The other heads' keys are all equal, so the smaller indices win.
    assert torch.equal(vertical[0, 0].long(), torch.arange(34, device="cuda"))

    blocks = minference.estimate_blocks(q, k, 6)
    assert torch.equal(blocks[0, -1, -1], blocks[0, -1, -1].sort().values)
    assert set((columns // 64).tolist()) <= set(blocks[0, -1, -1].tolist())


def test_memory_of_the_index_is_bounded():
    """1M keys, 32 query heads on 8: 64 MiB beside the inputs, including the lists."""
    seqlen = 1 << 20
    k = torch.zeros(1, seqlen, 8, 128, dtype=torch.bfloat16, device="cuda")
    q = torch.zeros(1, 64, 32, 128, dtype=torch.bfloat16, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    minference.estimate_vs(q, k, 1000, 6096)
    assert torch.cuda.max_memory_allocated() - before <= 64 << 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_agrees_with_the_cpu_backend(dtype):
    """Compared where the last score kept and the first left out differ by more than rounding."""
    q, k, _ = make_qkv(2, 300, 900, dtype=dtype)
    want = reference.estimate_vs(q, k, 60, 150)
    on_gpu = minference.estimate_vs(q.cuda(), k.cuda(), 60, 150)
    on_cpu = minference.estimate_vs(q, k, 60, 150)
    for part, score, forced in ((0, want.vertical_score, 30), (1, want.slash_score, 100)):
        size = on_cpu[part].shape[-1]
        score[..., :forced] = torch.inf
        cut = score.sort(-1, descending=True).values
        is_clear = cut[..., size - 1] > cut[..., size] * (1 + 1e-3)
        assert is_clear.any()
        assert torch.equal(on_gpu[part].cpu()[is_clear], on_cpu[part][is_clear])
