# SPDX-License-Identifier: Apache-2.0
"""The experiments of gpu_attention.py: what is compared with what, and the figures that come of it.

bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1 unless said.
"""

from __future__ import annotations

from functools import partial

import minference
import torch
from minference import AShape, BlockSparse, Dense, Pattern, VerticalSlash
from torch import Tensor

from bench import gpu_attention_reference as reference
from bench import gpu_peers, gpu_reference, inputs, peers
from bench.gpu_attention_reference import Checked
from bench.gpu_contenders import (
    BF16,
    CUDNN,
    FA2,
    HEADS,
    HEADS_KV,
    ORIGINAL,
    Result,
    budget_of,
    checked_own,
    checked_vertical_slash,
    drop_if_wrong,
    given_lists,
    on_sm80,
    original_contender,
    own_dense,
    poison,
    qkv_of,
    sdpa,
    sdpa_once,
    shape_of,
    work_of,
)
from bench.gpu_timing import GpuRun, copy_contender
from bench.harness import Contender, Figure
from bench.inputs import BLOCK

A_SHAPE = {"sink": 128, "window": 1024}

# ---- Dense ---------------------------------------------------------------------------------------


def dense(
    run: GpuRun,
    size: str,
    *,
    head_dim: int = 128,
    dtype: torch.dtype = BF16,
    at_least: float | None = None,
    vs_cudnn: float | None = None,
) -> None:
    qkv = qkv_of(run, shape_of(run, size, head_dim=head_dim), dtype)
    own = own_dense(run, qkv)
    run.measure(
        [
            own,
            on_sm80(run, own),
            run.graph("graph", own.run),
            *(sdpa(run, name, qkv) for name in (FA2, CUDNN)),
        ]
    )
    kind = "bf16" if dtype is BF16 else "fp16"
    row = f"dense {kind} head_dim {head_dim} {size}"
    run.speedup(f"{row} vs SDPA {FA2}", "own dense", FA2, at_least=at_least)
    run.speedup(f"{row} vs SDPA {CUDNN}", "own dense", CUDNN, at_least=vs_cudnn)
    if "own dense, sm80" in run.samples:
        run.speedup(f"{row} vs sm80 kernels", "own dense", "own dense, sm80", at_least=1.7)
    run.rate(row, "own dense")
    run.rate(f"{row}, SDPA {FA2}", FA2)
    run.rate(f"{row}, SDPA {CUDNN}", CUDNN)
    run.time(f"{row}, as a graph", "graph")


# ---- Sparse: what choosing keys costs ------------------------------------------------------------


def sparse(run: GpuRun, size: str) -> None:
    shape = shape_of(run, size)
    qkv = qkv_of(run, shape)
    # 16 tiles of 64 keys per row block, on average: the fewest at which a tile should cost what it
    # costs in dense attention.
    sixteen = 16 * BLOCK / (shape.seqlen / 2)
    labels = {"10 %": 0.1, "16 tiles": min(sixteen, 0.5), "8 tiles": min(sixteen / 2, 0.5)}
    lists = [c for label, of in labels.items() for c in given_lists(run, shape, qkv, of, label)]
    run.measure([own_dense(run, qkv), *lists])
    for contender in lists:
        row = f"{contender.name} {size}, executed rate vs own dense"
        at_least = 0.7 if contender.name.endswith(" 8 tiles") else 0.85
        run.executed_rate(row, contender.name, "own dense", at_least=at_least)
        run.rate(f"{contender.name} {size}", contender.name)
    run.rate(f"dense {size}, the same tensors", "own dense")


# ---- Vertical-slash, all stages ------------------------------------------------------------------


def vertical_slash(run: GpuRun, size: str, *, vs_cudnn: float | None = None) -> None:
    """With MInference's own pipeline, if its sources are there."""
    qkv = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    whole, estimate, compute = checked_vertical_slash(run, qkv)
    run.measure(
        [
            whole,
            on_sm80(run, whole),
            estimate,
            compute,
            run.graph("vertical-slash, graph", whole.run),
            own_dense(run, qkv),
            sdpa(run, FA2, qkv),
            sdpa(run, CUDNN, qkv),
            original_contender(run, qkv),
        ]
    )
    row = vertical_slash_figures(run, size, vs_cudnn)
    run.speedup(f"{row} vs SDPA {FA2}", "vertical-slash", FA2)
    if "vertical-slash, sm80" in run.samples:
        row_sm80 = f"{row} vs sm80 kernels"
        run.speedup(row_sm80, "vertical-slash", "vertical-slash, sm80", at_least=1.7)
    over_dense = {"32k": 1.5, "128k": 4.0}.get(size)
    run.speedup(f"{row} vs own dense", "vertical-slash", "own dense", at_least=over_dense)
    at_least = 4.0 if size == "128k" else None
    run.speedup(f"{row} vs {ORIGINAL}", "vertical-slash", ORIGINAL, at_least=at_least)
    run.time(f"{ORIGINAL} {size}, per layer", ORIGINAL)
    run.executed_rate(f"{row}, executed rate vs own dense", "plan + compute", "own dense")
    run.time(f"{row}, as a graph", "vertical-slash, graph")


def long_vertical_slash(run: GpuRun, size: str, *, vs_cudnn: float | None) -> None:
    """Where dense attention takes half a minute: one round of one peer."""
    qkv = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    cudnn = sdpa_once(run, CUDNN, qkv)
    own = partial(minference.prefill_attn, *qkv, Dense())
    dense = Contender("own dense", own, work_of(*qkv[:2]), max_rounds=1, warm_up=lambda: None)
    run.measure([*checked_vertical_slash(run, qkv), dense, cudnn])
    drop_if_wrong(run, cudnn, qkv)
    row = f"vertical-slash {budget_of(run)} {size}, whole call vs own dense, one round"
    run.speedup(row, "vertical-slash", "own dense", at_least={"512k": 10.0, "1m": 15.0}[size])
    vertical_slash_figures(run, size, vs_cudnn)


def vertical_slash_figures(run: GpuRun, size: str, vs_cudnn: float | None) -> str:
    row = f"vertical-slash {budget_of(run)} {size}, whole call"
    run.speedup(f"{row} vs SDPA {CUDNN}", "vertical-slash", CUDNN, at_least=vs_cudnn)
    run.rate(row, "vertical-slash")
    run.time(f"{row}, eager", "vertical-slash")
    of, over = (run.samples[name].values for name in ("estimate", "vertical-slash"))
    shares = [part / whole for part, whole in zip(of, over, strict=True)]
    run.add(Figure(f"{row}, share of estimate", shares, unit="%"))
    return row


def short_prompts(run: GpuRun) -> None:
    """Where sparsity begins to pay: the backend's kMinSparseSeqlen is the first such length."""
    budgets = ((500, 700), budget_of(run))
    for size in ("1k", "2k", "4k", "8k", "16k"):
        qkv = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
        dense = f"dense {size}"
        own = {b: partial(minference.prefill_attn, *qkv, VerticalSlash(*b)) for b in budgets}
        calls = {f"{b} {size}": Contender(f"{b} {size}", own[b]) for b in budgets}
        run.measure([own_dense(run, qkv, name=dense), *calls.values()])
        for name in calls:
            run.speedup(f"vertical-slash {name} vs own dense", name, dense)


# ---- Heads of different patterns -----------------------------------------------------------------


def mixed(run: GpuRun, size: str) -> None:
    """A quarter of the heads each: dense, A-shape, vertical-slash, block-sparse."""
    shape = shape_of(run, size)
    q, k, v = qkv = inputs.vertical_slash_qkv(shape, BF16, device=run.device)
    quarter, quarter_kv = HEADS // 4, HEADS_KV // 4
    patterns: list[Pattern] = [
        Dense(),
        AShape(**A_SHAPE),
        VerticalSlash(*budget_of(run)),
        BlockSparse(100 if not run.quick else 8),
    ]
    per_head = [pattern for pattern in patterns for _ in range(quarter)]
    parts = [
        (
            q[:, :, quarter * i :][:, :, :quarter],
            *(x[:, :, quarter_kv * i :][:, :, :quarter_kv] for x in (k, v)),
        )
        for i in range(len(patterns))
    ]
    keys = [
        reference.dense(shape.seqlen),
        reference.a_shape(shape.seqlen, **A_SHAPE),
        reference.vertical_slash(shape.seqlen, *minference.estimate_vs(q, k, *budget_of(run))),
        reference.blocks(shape.seqlen, minference.estimate_blocks(q, k, patterns[3].top_k)),
    ]

    def of_head(position: Tensor, head: int) -> Tensor:
        return keys[head // quarter](position, head)

    def separate() -> list[Result]:
        return [minference.prefill_attn(*x, p) for x, p in zip(parts, patterns, strict=True)]

    # By the library's own count of tiles; the ratio of the two calls does not depend on it.
    density = minference.density(q, k, per_head).mean().item()
    together = checked_own(
        run,
        "together",
        partial(minference.prefill_attn, *qkv, per_head),
        qkv,
        of_head,
        density,
    )
    run.measure(
        [
            together,
            Contender("apart", separate, work_of(q, k, density)),
            run.graph("together, graph", together.run),
            run.graph("apart, graph", separate),
        ]
    )
    row = f"four patterns {size}, one call"
    run.speedup(f"{row} vs four", "together", "apart", at_least=1.0)
    run.speedup(f"{row} vs four, both as graphs", "together, graph", "apart, graph")
    run.rate(row, "together")


# ---- Few rows over many keys ---------------------------------------------------------------------


def few_rows(run: GpuRun, size: str) -> None:
    """1, 64 and 512 rows: what bounds the first is reading K and V."""
    whole = qkv_of(run, shape_of(run, size))
    k, v = whole[1:]
    counts = [min(n, k.shape[1]) for n in (1, 64, 512)]
    contenders: list[Contender | None] = [copy_contender(run)]
    for rows in counts:
        qkv = whole[0][:, -rows:], k, v
        own = own_dense(run, qkv, name=f"{rows} rows")
        contenders += [own, run.graph(f"{rows} rows, graph", own.run)]
        contenders.append(sdpa(run, FA2, qkv, called=f"{rows} rows, {FA2}"))
    run.measure(contenders)
    for rows in counts:
        row = f"{rows} rows over {size} keys"
        moved = k.nbytes + v.nbytes
        run.bandwidth(f"{row}, K and V once, share of copy bandwidth", f"{rows} rows", moved)
        run.bandwidth(f"{row}, the same as a graph", f"{rows} rows, graph", moved)
        run.speedup(f"{row} vs SDPA {FA2}", f"{rows} rows", f"{rows} rows, {FA2}")
        run.rate(row, f"{rows} rows")


# ---- Against FlexAttention -----------------------------------------------------------------------


def a_shape(run: GpuRun, size: str) -> None:
    qkv = qkv_of(run, shape_of(run, size))
    seqlen = qkv[1].shape[1]
    density = inputs.a_shape_density(seqlen, **A_SHAPE)
    keys = reference.a_shape(seqlen, **A_SHAPE)
    call = partial(minference.prefill_attn, *qkv, AShape(**A_SHAPE))

    def flex() -> Contender:
        peer = peers.flex_a_shape(*qkv, **A_SHAPE)
        out = peer()
        Checked(*qkv, keys).out("FlexAttention", lambda head: out[0, :, head])
        return Contender("FlexAttention", peer, work_of(*qkv[:2], density))

    own = checked_own(run, "A-shape", call, qkv, keys, density)
    run.measure([own, own_dense(run, qkv), run.peer("FlexAttention", flex)])
    row = f"A-shape {A_SHAPE['sink']} + {A_SHAPE['window']} {size}"
    run.speedup(f"{row} vs FlexAttention", "A-shape", "FlexAttention")
    run.executed_rate(f"{row}, executed rate vs own dense", "A-shape", "own dense")
    run.rate(row, "A-shape")
    run.rate(f"{row}, FlexAttention", "FlexAttention")


def blocks(run: GpuRun, size: str) -> None:
    """Random lists of 64-wide blocks, 10 % of them."""
    shape = shape_of(run, size)
    qkv = qkv_of(run, shape)
    lists = inputs.random_blocks(shape, 0.1, device=run.device)
    density, keys = inputs.block_density(shape.seqlen, lists), reference.blocks(shape.seqlen, lists)
    call = partial(minference.block_index_attn, *qkv, lists)

    def flex() -> Contender:
        peer = gpu_peers.Flex(*qkv, lists)
        out = peer()
        Checked(*qkv, keys).out("FlexAttention", lambda head: out[0, head])
        return Contender("FlexAttention", peer, work_of(*qkv[:2], density))

    own = checked_own(run, "blocks", call, qkv, keys, density)
    run.measure([own, run.peer("FlexAttention", flex)])
    row = f"blocks of 64, 10 %, {size}"
    run.speedup(f"{row} vs FlexAttention", "blocks", "FlexAttention")
    run.rate(row, "blocks")
    run.rate(f"{row}, FlexAttention", "FlexAttention")


# ---- Merging, memory -----------------------------------------------------------------------------


def merge(run: GpuRun, size: str) -> None:
    shape = shape_of(run, size)
    generator = torch.Generator(run.device).manual_seed(0)
    out_size = (1, shape.seqlen, HEADS, shape.head_dim)
    lse_size = (1, HEADS, shape.seqlen)

    def part() -> Result:
        like = {"generator": generator, "device": run.device}
        return torch.randn(out_size, **like).to(BF16), torch.randn(lse_size, **like)

    (a, lse_a), (b, lse_b) = part(), part()
    call = partial(minference.merge_attn, a, lse_a, b, lse_b)
    poison(run, a)
    out, lse = call()
    for head in gpu_reference.sampled_heads(HEADS):
        want_lse = torch.logaddexp(lse_a[0, head].double(), lse_b[0, head].double())
        parts = ((a, lse_a), (b, lse_b))
        shares = [(of[0, head].double() - want_lse).exp()[:, None] for _, of in parts]
        want = sum(s * x[0, :, head].double() for s, (x, _) in zip(shares, parts, strict=True))
        error = (out[0, :, head].double() - want).abs() - torch.finfo(BF16).eps * want.abs()
        gpu_reference.require(error.max().item() <= 1e-5, f"merge: out of head {head}")
        off = (lse[0, head].double() - want_lse).abs().max().item()
        gpu_reference.require(off <= 1e-5, f"merge: lse of head {head}")
    run.tried.append("merged out and lse against float64, sampled heads")
    run.measure([Contender("merge", call), copy_contender(run)])
    moved = 3 * (a.nbytes + lse_a.nbytes)
    run.bandwidth(f"merge {size}, two read and one written, share of copy", "merge", moved)


def memory(run: GpuRun, size: str) -> None:
    """Peak of a whole vertical-slash call above q, k, v, out and lse."""
    if not run.on_gpu:
        run.missing.append("memory: only on a GPU")
        return
    qkv = qkv_of(run, shape_of(run, size))
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results = minference.prefill_attn(*qkv, VerticalSlash(*budget_of(run)))
    torch.cuda.synchronize()
    above = torch.cuda.max_memory_allocated() - before - sum(x.nbytes for x in results)
    row = f"memory above q, k, v, out, lse: vertical-slash {budget_of(run)} {size}"
    run.add(Figure(row, [above / 2**20], "MiB", at_most=64.0))
