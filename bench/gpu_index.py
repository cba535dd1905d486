# SPDX-License-Identifier: Apache-2.0
"""Index kernels on a GPU: estimate, select and plan; against the original's pipeline.

    python -m bench.gpu_index --json bench/results/<machine>/gpu_index.json

bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1. Most important rows first. What a figure
should be at least or at most stands beside it. Results are checked before they are timed.
"""

from __future__ import annotations

from functools import partial

import minference
import torch
from torch import Tensor

from bench import c_api, gpu_original, gpu_reference, inputs
from bench.gpu_timing import Experiments, GpuRun, copy_contender, main
from bench.harness import Contender, Figure
from bench.inputs import Shape

BF16 = torch.bfloat16
EXPERIMENTS = Experiments()
SIZES = {"8k": 2**13, "32k": 2**15, "128k": 2**17, "256k": 2**18, "512k": 2**19, "1m": 2**20}
TOP_K = 100


def budget_of(run: GpuRun) -> tuple[int, int]:
    return (1000, 6096) if not run.quick else (100, 200)


def shape_of(run: GpuRun, size: str) -> Shape:
    return Shape(run.seqlen(SIZES[size]), heads=32, heads_kv=8)


class Index:
    """Estimate, select and plan in one call; checked when made."""

    def __init__(self, run: GpuRun, q: Tensor, k: Tensor) -> None:
        self.estimate = partial(minference.estimate_vs, q, k, *budget_of(run))
        columns, self.distances = self.estimate()
        self.plan = c_api.Plan(self.distances, k.shape[1])
        gpu_reference.check_vertical_slash(q, k, columns, self.distances)
        gpu_reference.check_plan(self.distances, *self.plan(self.distances))
        run.tried.append("columns, distances and runs against float64 scores, sampled heads")

    def __call__(self) -> Tensor:
        self.plan(self.estimate()[1])
        return self.plan.runs


# ---- Vertical-slash ------------------------------------------------------------------------------


def vertical_slash(run: GpuRun, size: str, *, at_most_ms: float | None = None) -> None:
    shape = shape_of(run, size)
    q, k, _ = inputs.vertical_slash_qkv(shape, BF16, device=run.device)
    index = Index(run, q, k)
    run.measure(
        [
            Contender("estimate + select", index.estimate),
            Contender("plan", partial(index.plan, index.distances)),
            Contender("index", index),
            run.graph("index, graph", index),
            copy_contender(run),
        ]
    )
    row = f"vertical-slash {budget_of(run)} {size}"
    run.time(f"{row}, estimate + select + plan", "index", at_most_ms=at_most_ms)
    run.time(f"{row}, the same as a graph", "index, graph")
    at_least = 0.5 if at_most_ms is not None else None
    of_copy = f"{row}, K read twice, share of copy bandwidth"
    run.bandwidth(of_copy, "index", 2 * k.nbytes, at_least=at_least)
    run.bandwidth(f"{of_copy}, graph", "index, graph", 2 * k.nbytes)
    run.time(f"{row}, estimate + select", "estimate + select")
    run.time(f"{row}, plan", "plan")


def against_original(run: GpuRun, size: str, *, at_least: float | None = None) -> None:
    """Per layer. The original's K is repeated to all query heads before the clock starts."""
    q, k, _ = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    index, budget = Index(run, q, k), budget_of(run)
    q_first, k_first = gpu_original.heads_first(q, k)
    check_original(q, k, q_first, k_first, budget)
    run.tried.append("the original's selection and lists, sampled heads and row blocks")

    # A graph keeps all of its memory: at 1M more than there is.
    graphed = SIZES[size] <= SIZES["256k"]
    looped = partial(gpu_original.per_head, q_first, k_first, budget)
    batched = partial(gpu_original.all_heads, q_first, k_first, budget)
    run.measure(
        [
            Contender("index", index),
            run.graph("index, graph", index),
            Contender("original, per head", looped),
            run.peer("original, all heads at once", lambda: all_heads_contender(batched)),
            run.graph("original, all heads, graph", batched) if graphed else None,
        ]
    )
    row = f"index {size} vs original"
    run.speedup(f"{row}, head by head", "index", "original, per head", at_least=at_least)
    run.speedup(f"{row}, all heads at once", "index", "original, all heads at once")
    if graphed:
        run.speedup(f"{row}, both as graphs", "index, graph", "original, all heads, graph")


def all_heads_contender(batched: partial[gpu_original.Lists]) -> Contender:
    batched()  # Here, so that too little memory leaves out this contender alone.
    return Contender("original, all heads at once", batched)


def check_original(
    q: Tensor, k: Tensor, q_first: Tensor, k_first: Tensor, budget: tuple[int, int]
) -> None:
    seqlen = k.shape[1]
    for head in gpu_reference.sampled_heads(q.shape[2]):
        one = slice(head, head + 1)
        columns, distances = gpu_original.select(q_first[one], k_first[one], budget)
        vertical, slash = gpu_reference.vertical_slash_scores(q, k, head)
        for name, index, score, forced in (
            ("columns", columns[0], vertical, gpu_original.SINK),
            ("distances", distances[0], slash, gpu_original.LOCAL),
        ):
            gpu_reference.check_mass(f"original, {name} of head {head}", index, score, forced)
        lists = gpu_original.convert_heads(columns, distances, seqlen)
        num_row_blocks = lists.block_count.shape[1]
        for row_block in {0, 1, num_row_blocks // 2, num_row_blocks - 1}:
            got = tuple(
                index[0, row_block, : int(count[0, row_block])].tolist()
                for index, count in (
                    (lists.block_offset, lists.block_count),
                    (lists.column_index, lists.column_count),
                )
            )
            want = gpu_original.convert_row(columns[0].tolist(), distances[0].tolist(), row_block)
            gpu_reference.require(got == want, f"original, lists of head {head}, {row_block}")


# ---- Block-sparse --------------------------------------------------------------------------------


def blocks(run: GpuRun, size: str, *, at_most_ms: float) -> None:
    q, k, _ = inputs.random_qkv(shape_of(run, size), BF16, device=run.device)
    estimate = partial(minference.estimate_blocks, q, k, TOP_K if not run.quick else 8)
    gpu_reference.check_blocks(q, k, estimate())
    run.tried.append("block ids against float64 scores, sampled heads and row blocks")
    # At 1M its scores of all heads together take 34 GB: head by head there.
    q_first, k_first = gpu_original.heads_first(q, k)
    whole = SIZES[size] <= SIZES["256k"]
    original = gpu_original.select_blocks if whole else gpu_original.select_blocks_per_head
    top_k = TOP_K if not run.quick else 8
    run.measure(
        [
            Contender("estimate", estimate),
            run.graph("estimate, graph", estimate),
            Contender("original", partial(original, q_first, k_first, top_k)),
            copy_contender(run),
        ]
    )
    row = f"block-sparse top-{TOP_K} {size}"
    run.time(f"{row}, estimate", "estimate", at_most_ms=at_most_ms)
    run.time(f"{row}, the same as a graph", "estimate, graph")
    of_copy = f"{row}, q and k read once, share of copy bandwidth"
    run.bandwidth(of_copy, "estimate", q.nbytes + k.nbytes)
    run.speedup(f"{row} vs original (pool, einsum, topk, sort)", "estimate", "original")


# ---- Memory --------------------------------------------------------------------------------------


def memory(run: GpuRun, size: str) -> None:
    """Peak above q and k: work memory and the index itself."""
    if not run.on_gpu:
        run.missing.append("memory: only on a GPU")
        return
    q, k, _ = inputs.random_qkv(shape_of(run, size), BF16, device=run.device)

    def peak_mib(call: partial[object]) -> float:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        del result
        return (torch.cuda.max_memory_allocated() - before) / 2**20

    def index() -> tuple[Tensor, ...]:
        columns, distances = minference.estimate_vs(q, k, *budget_of(run))
        return (columns, *c_api.Plan(distances, k.shape[1])(distances))

    row = f"memory above q and k, {size}, 32 heads"
    run.add(Figure(f"{row}, vertical-slash index", [peak_mib(partial(index))], "MiB", at_most=64))
    estimate = partial(minference.estimate_blocks, q, k, TOP_K)
    note = f"of them {estimate().nbytes / 2**20:.0f} MiB the lists themselves"
    run.add(Figure(f"{row}, block-sparse index", [peak_mib(estimate)], "MiB", note=note))


# ---- Rows, most important first ------------------------------------------------------------------


@EXPERIMENTS.register("vs-128k")
def vs_128k(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 131072: estimate, select, plan."""
    vertical_slash(run, "128k", at_most_ms=0.5)


@EXPERIMENTS.register("vs-1m")
def vs_1m(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 1048576: estimate, select, plan."""
    vertical_slash(run, "1m", at_most_ms=4.0)


@EXPERIMENTS.register("blocks-128k")
def blocks_128k(run: GpuRun) -> None:
    """Block-sparse top-100, S 131072: estimate."""
    blocks(run, "128k", at_most_ms=1.0)


@EXPERIMENTS.register("blocks-1m")
def blocks_1m(run: GpuRun) -> None:
    """Block-sparse top-100, S 1048576: estimate."""
    blocks(run, "1m", at_most_ms=40.0)


@EXPERIMENTS.register("original-128k")
def original_128k(run: GpuRun) -> None:
    """Vertical-slash index, S 131072, against the original's pipeline."""
    against_original(run, "128k", at_least=20)


@EXPERIMENTS.register("memory-1m")
def memory_1m(run: GpuRun) -> None:
    """Memory of the indices, S 1048576."""
    memory(run, "1m")


@EXPERIMENTS.register("original-1m")
def original_1m(run: GpuRun) -> None:
    """Vertical-slash index, S 1048576, against the original's pipeline."""
    against_original(run, "1m", at_least=20)


@EXPERIMENTS.register("original-8k")
def original_8k(run: GpuRun) -> None:
    """Vertical-slash index, S 8192, against the original's pipeline."""
    against_original(run, "8k")


@EXPERIMENTS.register("original-32k")
def original_32k(run: GpuRun) -> None:
    """Vertical-slash index, S 32768, against the original's pipeline."""
    against_original(run, "32k")


@EXPERIMENTS.register("vs-8k")
def vs_8k(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 8192."""
    vertical_slash(run, "8k")


@EXPERIMENTS.register("vs-32k")
def vs_32k(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 32768."""
    vertical_slash(run, "32k")


@EXPERIMENTS.register("vs-256k")
def vs_256k(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 262144."""
    vertical_slash(run, "256k")


@EXPERIMENTS.register("vs-512k")
def vs_512k(run: GpuRun) -> None:
    """Vertical-slash (1000, 6096), S 524288."""
    vertical_slash(run, "512k")


if __name__ == "__main__":
    main((__doc__ or "").strip().splitlines()[0], EXPERIMENTS)
