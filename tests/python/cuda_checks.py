# SPDX-License-Identifier: Apache-2.0
"""What every call must do right on a GPU: graphs, streams, the same bits in every run."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[..., tuple[Tensor, ...]]
MakeInputs = Callable[[int], tuple[Tensor, ...]]  # By seed.


def assert_same_bits(got: tuple[Tensor, ...], want: tuple[Tensor, ...]) -> None:
    for one, other in zip(got, want, strict=True):
        assert torch.equal(one, other)


def assert_replay_reads_the_inputs_of_the_replay(call: Call, make_inputs: MakeInputs) -> None:
    inputs = make_inputs(0)
    call(*inputs)  # Loads the kernels, which must not happen during a capture.
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(*inputs)

    for seed in (1, 2):
        others = make_inputs(seed)
        want = call(*others)
        for x, other in zip(inputs, others, strict=True):
            x.copy_(other)
        for result in captured:
            result.fill_(torch.nan if result.is_floating_point() else -7)
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bits(captured, want)


def assert_work_goes_to_the_current_stream(call: Call, make_inputs: MakeInputs) -> None:
    """Run on a side stream behind a long copy: any other stream would read the old inputs."""
    inputs, others = make_inputs(0), make_inputs(1)
    want = call(*others)
    stream = torch.cuda.Stream()
    ballast = torch.ones(1 << 28, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(8):
            ballast.mul_(1.0)
        for x, other in zip(inputs, others, strict=True):
            x.copy_(other)
        got = call(*inputs)
    stream.synchronize()
    assert_same_bits(got, want)


def assert_same_bits_every_run(call: Call, inputs: tuple[Tensor, ...], runs: int) -> None:
    want = call(*inputs)
    for _ in range(runs):
        assert_same_bits(call(*inputs), want)
