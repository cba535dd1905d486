# SPDX-License-Identifier: Apache-2.0
"""Index kernels on a GPU: estimate, select and plan, compared with the original's pipeline.

    python -m bench.gpu_index --json bench/results/<machine>/gpu_index.json

bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1. Most important rows first. Each figure is
printed with the bound that it should reach. Results are checked before they are timed.
"""

from __future__ import annotations

from functools import partial

import minference
from torch import Tensor

from bench import c_api, inputs, original, reference
from bench.harness import Contender, Figure, Run
from bench.rows import BF16, shape_of
from bench.runner import Rows, main

GRAPHED = 2**18  # Keys up to which the original's graph, and its scores of all heads, fit memory.


class Index:
    """Estimate, select and plan in one call; checked when made."""

    def __init__(self, run: Run, q: Tensor, k: Tensor) -> None:
        self.estimate = partial(minference.estimate_vs, q, k, *run.budget)
        columns, self.distances = self.estimate()
        self.plan = c_api.Plan(self.distances, k.shape[1])
        reference.check_vertical_slash(q, k, columns, self.distances)
        reference.check_plan(self.distances, *self.plan(self.distances))
        run.checked.append("columns, distances and runs against float64 scores, sampled heads")

    def __call__(self) -> tuple[Tensor, Tensor]:
        return self.plan(self.estimate()[1])


def vertical_slash(run: Run, size: str, *, at_most_ms: float | None = None) -> None:
    """Vertical-slash (1000, 6096): estimate, select, plan."""
    q, k, _ = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    index = Index(run, q, k)
    run.measure(
        [
            Contender("estimate + select", index.estimate),
            Contender("plan", partial(index.plan, index.distances)),
            Contender("index", index),
            run.graph("index, graph", index),
            run.copy(),
        ]
    )
    row = f"vertical-slash {run.budget} {size}"
    of_copy = f"{row}, K read twice, share of copy bandwidth"
    run.time(f"{row}, estimate + select + plan", "index", at_most_ms=at_most_ms)
    run.bandwidth(of_copy, "index", 2 * k.nbytes, at_least=0.5 if at_most_ms else None)
    run.time(f"{row}, the same as a graph", "index, graph")
    run.bandwidth(f"{of_copy}, graph", "index, graph", 2 * k.nbytes)
    run.time(f"{row}, estimate + select", "estimate + select")
    run.time(f"{row}, plan", "plan")


def blocks(run: Run, size: str, *, at_most_ms: float) -> None:
    """Block-sparse top-100: estimate."""
    q, k, _ = inputs.random_qkv(shape_of(run, size), BF16, device=run.device)
    top_k = 100 if not run.quick else 8
    estimate = partial(minference.estimate_blocks, q, k, top_k)
    reference.check_blocks(q, k, estimate())
    run.checked.append("block ids against float64 scores, sampled heads and row blocks")
    # At 1M the scores of all heads together take 34 GB, so it runs head by head there.
    whole = k.shape[1] <= GRAPHED
    select = original.select_blocks if whole else original.select_blocks_per_head
    run.measure(
        [
            Contender("estimate", estimate),
            run.graph("estimate, graph", estimate),
            Contender("original", partial(select, *original.heads_first(q, k), top_k)),
            run.copy(),
        ]
    )
    row = f"block-sparse top-{top_k} {size}"
    run.time(f"{row}, estimate", "estimate", at_most_ms=at_most_ms)
    run.time(f"{row}, the same as a graph", "estimate, graph")
    of_copy = f"{row}, q and k read once, share of copy bandwidth"
    run.bandwidth(of_copy, "estimate", q.nbytes + k.nbytes)
    run.speedup(f"{row} vs original (pool, einsum, topk, sort)", "estimate", "original")


def against_original(run: Run, size: str, *, at_least: float | None = None) -> None:
    """Vertical-slash index against the original's pipeline, per layer."""
    q, k, _ = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    index, heads_first = Index(run, q, k), original.heads_first(q, k)
    check_original(run, q, k, *heads_first)
    looped = partial(original.per_head, *heads_first, run.budget)
    batched = partial(original.all_heads, *heads_first, run.budget)
    contender = Contender("original, all heads at once", batched, warm_up=None)
    run.measure(
        [
            Contender("index", index),
            run.graph("index, graph", index),
            Contender("original, per head", looped),
            # Called here, so that a lack of memory leaves out only this contender.
            run.peer(contender.name, lambda: batched() and contender),
            # A graph keeps all of its memory, which at 1M is more than there is.
            run.graph("original, graph", batched) if k.shape[1] <= GRAPHED else None,
        ]
    )
    row = f"index {size} vs original"
    run.speedup(f"{row}, head by head", "index", "original, per head", at_least=at_least)
    run.speedup(f"{row}, all heads at once", "index", contender.name)
    run.speedup(f"{row}, all heads, both as graphs", "index, graph", "original, graph")


def check_original(run: Run, q: Tensor, k: Tensor, q_first: Tensor, k_first: Tensor) -> None:
    for head in reference.sampled_heads(q.shape[2]):
        one = slice(head, head + 1)
        columns, distances = original.select(q_first[one], k_first[one], run.budget)
        vertical, slash = reference.vertical_slash_scores(q, k, head)
        name = f"original, {{}} of head {head}"
        reference.check_mass(name.format("columns"), columns[0], vertical, reference.SINK)
        reference.check_mass(name.format("distances"), distances[0], slash, reference.LOCAL)
        lists = original.convert_heads(columns, distances, k.shape[1])
        last = lists.block_count.shape[1] - 1
        for row_block in {0, min(1, last), last // 2, last}:
            pairs = zip(lists[::2], lists[1::2], strict=True)
            got = [index[0, row_block, : count[0, row_block]].tolist() for count, index in pairs]
            want = original.convert_row(columns[0].tolist(), distances[0].tolist(), row_block)
            reference.require(got == list(want), name.format(f"lists {row_block}"))
    run.checked.append("the original's selection and lists, sampled heads and row blocks")


def memory(run: Run, size: str) -> None:
    """Memory of the indices above q and k: work memory and the index itself."""
    q, k, _ = inputs.random_qkv(shape_of(run, size), BF16, device=run.device)
    blocks = partial(minference.estimate_blocks, q, k, 100)

    def vertical_slash() -> tuple[Tensor, ...]:
        columns, distances = minference.estimate_vs(q, k, *run.budget)
        return (columns, *c_api.Plan(distances, k.shape[1])(distances))

    row = f"memory above q and k, {size}, 32 heads"
    peak = run.peak_bytes(vertical_slash) / 2**20
    run.add(Figure(f"{row}, vertical-slash index", [peak], "MiB", at_most=64))
    note = f"of them {blocks().nbytes / 2**20:.0f} MiB the lists themselves"
    peak = run.peak_bytes(blocks) / 2**20
    run.add(Figure(f"{row}, block-sparse index", [peak], "MiB", note=note))


ROWS: Rows = {  # Most important first.
    "vs-128k": partial(vertical_slash, size="128k", at_most_ms=0.5),
    "vs-1m": partial(vertical_slash, size="1m", at_most_ms=4.0),
    "blocks-128k": partial(blocks, size="128k", at_most_ms=1.0),
    "blocks-1m": partial(blocks, size="1m", at_most_ms=40.0),
    "original-128k": partial(against_original, size="128k", at_least=20),
    "memory-1m": partial(memory, size="1m"),
    "original-1m": partial(against_original, size="1m", at_least=20),
    **{f"original-{size}": partial(against_original, size=size) for size in ("8k", "32k")},
    **{f"vs-{n}": partial(vertical_slash, size=n) for n in ("8k", "32k", "256k", "512k")},
}

if __name__ == "__main__":
    main(__doc__, ROWS, device="cuda", heads=(32, 8))
