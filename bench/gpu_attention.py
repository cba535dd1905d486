# SPDX-License-Identifier: Apache-2.0
"""Attention on a GPU: rates, compared with its own dense, torch, and the original.

    python -m bench.gpu_attention --json bench/results/<machine>/gpu_attention.json
    python -m bench.gpu_attention --original minference-0.1.6.0    # with MInference's own kernels

bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1 unless said. Most important rows first.
Each figure is printed with the bound that it should reach. Results are checked before timing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import minference
import torch
from torch import Tensor

from bench import inputs, reference, rows
from bench.harness import Contender, Run
from bench.peers import CUDNN, FA2
from bench.runner import Rows, main


def dense(
    run: Run,
    size: str,
    *,
    head_dim: int = 128,
    dtype: torch.dtype = rows.BF16,
    demands: Mapping[str, float] = rows.NO_DEMANDS,
) -> None:
    """Dense attention against torch."""
    shape = rows.shape_of(run, size, head_dim=head_dim)
    qkv = inputs.random_qkv(shape, dtype, device=run.device)
    own = rows.own_dense(run, qkv)
    peers = [rows.sdpa(run, name, qkv) for name in (FA2, CUDNN)]
    run.measure([own, rows.on_sm80(run, own), run.graph("graph", own.run), *peers])
    row, sm80 = f"dense {rows.NAMES[dtype]} head_dim {head_dim} {size}", f"{rows.OWN}, sm80"
    for name in (FA2, CUDNN):
        run.speedup(f"{row} vs SDPA {name}", rows.OWN, name, at_least=demands.get(name))
        run.rate(f"{row}, SDPA {name}", name)
    if sm80 in run.samples:
        run.speedup(f"{row} vs sm80 kernels", rows.OWN, sm80, at_least=1.7)
        run.speedup(f"{row}, sm80 kernels, vs SDPA {FA2}", sm80, FA2)
    run.rate(row, rows.OWN)
    if run.on_gpu:
        run.time(f"{row}, as a graph", "graph")


def merge(run: Run, size: str) -> None:
    """Merging two parts: share of copy bandwidth."""
    shape = rows.shape_of(run, size)
    generator = torch.Generator(run.device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=run.device)

    outs = [draw(1, shape.seqlen, shape.heads, shape.head_dim).to(rows.BF16) for _ in range(2)]
    lses = [draw(1, shape.heads, shape.seqlen) for _ in range(2)]
    call = partial(minference.merge_attn, outs[0], lses[0], outs[1], lses[1])
    rows.poison(run, outs[0])
    out, lse = call()
    for head in reference.sampled_heads(shape.heads):
        parts = [x[0, head].double() for x in lses]
        want_lse = torch.logaddexp(*parts)
        want = sum(
            (part - want_lse).exp()[:, None] * x[0, :, head].double()
            for part, x in zip(parts, outs, strict=True)
        )
        error = (out[0, :, head].double() - want).abs() - torch.finfo(rows.BF16).eps * want.abs()
        reference.require(error.max().item() <= 1e-5, f"merge: out of head {head}")
        off = (lse[0, head].double() - want_lse).abs().max().item()
        reference.require(off <= 1e-5, f"merge: lse of head {head}")
    run.checked.append("merged out and lse against float64, sampled heads")
    run.measure([Contender("merge", call), run.copy()])
    moved = 3 * (outs[0].nbytes + lses[0].nbytes)
    run.bandwidth(f"merge {size}, two read and one written, share of copy", "merge", moved)


def slash(size: str, **demands: float) -> partial[None]:
    """``demands``: lower bounds on the speedup over own dense, cudnn, original, sm80."""
    names = {
        "own": rows.OWN,
        "cudnn": CUDNN,
        "original": rows.ORIGINAL,
        "sm80": f"{rows.SLASH}, sm80",
    }
    wanted = {names[name]: value for name, value in ({"sm80": 1.7} | demands).items()}
    if size in ("512k", "1m"):  # Dense attention takes half a minute: one round.
        return partial(rows.vertical_slash, size=size, peers=(), once=(CUDNN,), demands=wanted)
    return partial(rows.vertical_slash, size=size, demands=wanted)


OF_DENSE, HARD = (0.85, 0.85, 0.85), (0.7, 0.7, 0.7)
ROWS: Rows = {  # Most important first.
    "dense-32k": partial(dense, size="32k", demands={FA2: 1.0}),
    "dense-16k": partial(dense, size="16k", demands={CUDNN: 0.95}),
    "sparse-128k": partial(
        rows.sparse, size="128k", demands={"10 %": OF_DENSE, "16 tiles": OF_DENSE, "8 tiles": HARD}
    ),
    "vs-128k": slash("128k", own=4.0, cudnn=2.0, original=4.0),
    "mixed-128k": partial(rows.mixed, size="128k"),
    "rows-32k": partial(rows.few_rows, size="32k", counts=(1, 64, 512), peer=FA2),
    "dense-128k": partial(dense, size="128k", demands={CUDNN: 0.95}),
    "dense-8k": partial(dense, size="8k"),
    "vs-1m": slash("1m", own=15.0, cudnn=6.0),
    "vs-512k": slash("512k", own=10.0),
    "short": partial(rows.short_prompts, sizes=("1k", "2k", "4k", "8k", "16k")),
    "rows-128k": partial(rows.few_rows, size="128k", counts=(1, 64, 512), peer=FA2),
    "merge-128k": partial(merge, size="128k"),
    "memory-1m": partial(rows.memory, size="1m", at_most_mib=64.0),
    "vs-32k": slash("32k", own=1.5),
    "mixed-32k": partial(rows.mixed, size="32k"),
    "vs-8k": slash("8k"),
    **{f"dense-d{dim}": partial(dense, size="32k", head_dim=dim) for dim in (64, 96, 256)},
    "dense-fp16": partial(dense, size="32k", dtype=rows.FP16),
    "a-shape-128k": partial(rows.a_shape, size="128k"),
    "blocks-128k": partial(rows.blocks, size="128k"),
}

if __name__ == "__main__":
    main(__doc__, ROWS, device="cuda", heads=(32, 8))
