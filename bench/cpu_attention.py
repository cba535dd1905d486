# SPDX-License-Identifier: Apache-2.0
"""Prefill attention on a CPU: rates, against the machine's peak and against other libraries.

    python -m bench.cpu_attention --json bench/results/<machine>/cpu_attention.json

Each experiment below is a row, or a few, of the table in README.md, which says what they mean. What
a figure should be at least or at most stands beside it; the report says whether it was reached.
"""

from __future__ import annotations

from functools import partial

import minference
import torch
from torch import Tensor

from bench import c_api, inputs, machine, peers
from bench.harness import Contender, Figure, Work, causal_flops
from bench.inputs import Shape
from bench.runner import Run, experiment, main

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
NAMES = {FP32: "fp32", BF16: "bf16", FP16: "fp16"}


def peak_kind(isa: str, dtype: torch.dtype) -> str | None:
    """The arithmetic that bounds minference on this instruction set."""
    if isa == "avx512_bf16":
        return "avx512_bf16" if dtype is BF16 else "avx512_fp32"
    return {"avx512": "avx512_fp32", "avx2": "avx2_fp32"}.get(isa)


def work(shape: Shape, density: float = 1.0) -> Work:
    flops = causal_flops(shape.seqlen, shape.seqlen, heads=shape.heads, head_dim=shape.head_dim)
    return Work(dense=flops, density=density)


def own_dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return minference.prefill_attn(q, k, v, minference.Dense())[0]


def own_dense_contender(shape: Shape, dtype: torch.dtype, *, name: str = "") -> Contender:
    call = partial(own_dense, *inputs.random_qkv(shape, dtype))
    return Contender(name or f"minference {NAMES[dtype]}", call, work(shape))


# ---- Dense: the cost of a tile -----------------------------------------------------------------


@experiment("dense-8k", rounds=7)
def dense_8k(run: Run) -> None:
    """Dense attention, S 8192, against the fastest dense peers and the arithmetic peak."""
    shape = Shape(run.seqlen(8192))
    qkv = {dtype: inputs.random_qkv(shape, dtype) for dtype in NAMES}
    own = {dtype: partial(own_dense, *qkv[dtype]) for dtype in NAMES}
    for dtype in NAMES:
        peers.check_close(f"minference {NAMES[dtype]}", own[dtype](), peers.sdpa(*qkv[dtype]))

    def onnxruntime() -> Contender:
        call = peers.OrtAttention(*qkv[FP32], num_threads=run.num_threads)
        peers.check_close("onnxruntime", call(), peers.sdpa(*qkv[FP32]))
        return Contender("onnxruntime fp32", call, work(shape))

    peaks = {dtype: peak_kind(run.isa, dtype) for dtype in (FP32, BF16)}
    run.measure(
        [
            *(Contender(f"minference {NAMES[d]}", own[d], work(shape)) for d in NAMES),
            run.peer("onnxruntime fp32", onnxruntime),
            *(
                Contender(f"SDPA {NAMES[d]}", partial(peers.sdpa, *qkv[d]), work(shape))
                for d in (FP32, BF16)
            ),
            *(run.peak(kind) for kind in dict.fromkeys(peaks.values())),
        ]
    )
    fp32, bf16, fp16 = (f"minference {name}" for name in NAMES.values())
    run.speedup("dense fp32 8K vs onnxruntime fp32", fp32, "onnxruntime fp32", at_least=1.35)
    run.share_of_peak("dense fp32 8K, share of peak", fp32, peaks[FP32], at_least=0.88)
    run.speedup("dense bf16 8K vs onnxruntime fp32", bf16, "onnxruntime fp32", at_least=2.5)
    run.speedup("dense bf16 8K vs SDPA bf16", bf16, "SDPA bf16", at_least=4.8)
    run.share_of_peak("dense bf16 8K, share of peak", bf16, peaks[BF16], at_least=0.85)
    run.speedup("dense fp16 8K vs own fp32", fp16, fp32, at_least=0.95)


@experiment("dense-32k", rounds=5)
def dense_32k(run: Run) -> None:
    """Dense attention, bf16: the rate at S 32768 against the rate at 8192."""
    contenders = [
        own_dense_contender(Shape(run.seqlen(n)), BF16, name=f"minference bf16 {n // 1024}K")
        for n in (8192, 32_768)
    ]
    run.measure(contenders)
    short, long = (contender.name for contender in contenders)
    run.executed_rate("dense bf16 32K, rate vs own 8K", long, short, at_least=0.97)


@experiment("avx2", rounds=7, isa="avx2")
def avx2(run: Run) -> None:
    """Dense attention, fp32, S 8192, with AVX2 alone."""
    shape = Shape(run.seqlen(8192))
    q, k, v = inputs.random_qkv(shape, FP32)
    run.measure(
        [
            own_dense_contender(shape, FP32),
            own_dense_contender(shape, BF16),
            Contender("SDPA fp32", partial(peers.sdpa, q, k, v), work(shape)),
            run.peak("avx2_fp32"),
        ]
    )
    run.speedup("AVX2 dense fp32 8K vs SDPA fp32", "minference fp32", "SDPA fp32", at_least=1.25)
    run.share_of_peak(
        "AVX2 dense fp32 8K, share of peak", "minference fp32", "avx2_fp32", at_least=0.85
    )


@experiment("threads", rounds=5, alternate=True)
def threads(run: Run) -> None:
    """All threads against one, in processes that take turns."""
    shape = Shape(run.seqlen(8192))
    slash = inputs.random_runs(shape, 0.1)
    density = inputs.vertical_slash_density(shape.seqlen, inputs.no_index(shape), slash)
    q, k, v = inputs.random_qkv(shape, BF16)
    runs = partial(minference.vs_sparse_attn, q, k, v, inputs.no_index(shape), slash)
    run.measure(
        [
            own_dense_contender(shape, FP32, name="dense fp32 8K"),
            own_dense_contender(shape, BF16, name="dense bf16 8K"),
            Contender("runs bf16 8K", runs, work(shape, density)),
        ]
    )


# ---- Sparse: what choosing keys costs ----------------------------------------------------------


def sparse(run: Run, seqlen: int, *, scattered: float, gathered: float) -> None:
    """Rates of each index kind at 10 % density over the rate of dense, fp32 and bf16.

    ``scattered`` and ``gathered`` are the shares demanded for runs and blocks, and for columns.
    """
    shape = Shape(run.seqlen(seqlen))
    slash, none = inputs.random_runs(shape, 0.1), inputs.no_index(shape)
    columns, blocks = inputs.random_columns(shape, 0.1), inputs.random_blocks(shape, 0.1)
    runs_work = work(shape, inputs.vertical_slash_density(shape.seqlen, none, slash))
    columns_work = work(shape, inputs.vertical_slash_density(shape.seqlen, columns, none))
    blocks_work = work(shape, inputs.block_density(shape.seqlen, blocks))
    size = f"{seqlen // 1024}K"
    for dtype in (BF16, FP32):
        name = NAMES[dtype]
        qkv = inputs.random_qkv(shape, dtype)
        vs, bs = minference.vs_sparse_attn, minference.block_index_attn
        run.measure(
            [
                own_dense_contender(shape, dtype, name=f"dense {name}"),
                Contender(f"runs {name}", partial(vs, *qkv, none, slash), runs_work),
                Contender(f"columns {name}", partial(vs, *qkv, columns, none), columns_work),
                Contender(f"blocks {name}", partial(bs, *qkv, blocks), blocks_work),
            ]
        )
        for kind, share in (("runs", scattered), ("columns", gathered), ("blocks", scattered)):
            row = f"{kind} {name} {size}, executed rate vs own dense"
            run.executed_rate(row, f"{kind} {name}", f"dense {name}", at_least=share)
        for kind in ("runs", "columns", "blocks"):
            run.speedup(
                f"{kind} {name} {size}, time vs own dense", f"{kind} {name}", f"dense {name}"
            )


@experiment("sparse-8k", rounds=9)
def sparse_8k(run: Run) -> None:
    """Runs, columns and blocks at 10 % density, S 8192, against own dense."""
    sparse(run, 8192, scattered=0.85, gathered=0.90)


@experiment("sparse-32k", rounds=5)
def sparse_32k(run: Run) -> None:
    """Runs, columns and blocks at 10 % density, S 32768, against own dense."""
    sparse(run, 32_768, scattered=0.90, gathered=0.95)


@experiment("a-shape", rounds=9)
def a_shape(run: Run) -> None:
    """A-shape 128 + 1024, S 8192, fp32, against FlexAttention compiled with the same mask."""
    shape = Shape(run.seqlen(8192))
    keys = {"sink": 128, "window": 1024}
    q, k, v = inputs.random_qkv(shape, FP32)
    want = peers.dense_a_shape(q, k, v, **keys)
    own = partial(minference.a_shape_attn, q, k, v, **keys)
    peers.check_close("minference a_shape", own(), want)
    sparse_work = work(shape, inputs.a_shape_density(shape.seqlen, **keys))

    def flex() -> Contender:
        call = peers.flex_a_shape(q, k, v, **keys)
        peers.check_close("FlexAttention", call(), want)
        return Contender("FlexAttention fp32", call, sparse_work)

    bf16 = [x.to(BF16) for x in (q, k, v)]
    run.measure(
        [
            Contender("A-shape fp32", own, sparse_work),
            Contender("A-shape bf16", partial(minference.a_shape_attn, *bf16, **keys), sparse_work),
            own_dense_contender(shape, FP32, name="dense fp32"),
            run.peer("FlexAttention fp32", flex),
        ]
    )
    flex_name = "FlexAttention fp32"
    run.speedup("A-shape fp32 8K vs FlexAttention", "A-shape fp32", flex_name, at_least=2.2)
    run.speedup("A-shape bf16 8K vs FlexAttention fp32", "A-shape bf16", flex_name)
    run.executed_rate("A-shape fp32 8K, executed rate vs own dense", "A-shape fp32", "dense fp32")


# ---- Vertical-slash, all stages ----------------------------------------------------------------


def vertical_slash(run: Run, seqlen: int, *, with_sdpa: bool) -> None:
    """Budget (1000, 6096), bf16, on inputs whose attention has verticals and clustered slashes."""
    shape = Shape(run.seqlen(seqlen))
    size = f"{seqlen // 1024}K"
    budget = (1000, 6096) if not run.quick else (100, 400)
    q, k, v = inputs.vertical_slash_qkv(shape, BF16)
    columns, distances = minference.estimate_vs(q, k, *budget)
    density = inputs.vertical_slash_density(shape.seqlen, columns, distances)
    sparse_work = work(shape, density)
    last_row = q[:, -1:]
    start = [x[:, :2048] for x in (q, k, v)]  # Warms up what takes minutes at full length.

    own = partial(minference.vs_attn, q, k, v, *budget)
    compute = partial(minference.vs_sparse_attn, q, k, v, columns, distances)
    plan = partial(minference.vs_sparse_attn, last_row, k, v, columns, distances)
    contenders = [
        Contender("vertical-slash", own, sparse_work),
        Contender("estimate", partial(minference.estimate_vs, q, k, *budget)),
        Contender("plan, and one row", plan),
        Contender("compute", compute, sparse_work),
        Contender(
            "own dense",
            partial(own_dense, q, k, v),
            work(shape),
            warm_up=partial(own_dense, *start),
        ),
    ]
    if with_sdpa:
        sdpa = Contender("SDPA", partial(peers.sdpa, q, k, v), work(shape), max_rounds=1)
        sdpa.warm_up = partial(peers.sdpa, *start)
        contenders.append(sdpa)
    run.measure(contenders)

    row = f"vertical-slash {budget} bf16 {size}"
    demanded = {"own dense": 5.0, "SDPA": 25.0} if seqlen > 65_536 else {}
    for over in ("own dense", "SDPA") if with_sdpa else ("own dense",):
        run.speedup(f"{row} vs {over}", "vertical-slash", over, at_least=demanded.get(over))
    run.executed_rate(f"{row}, executed rate vs own dense", "compute", "own dense")

    # An upper bound: the plan is timed inside a call for the last row alone.
    per_round = zip(
        *(run.samples[n].values for n in ("estimate", "plan, and one row", "vertical-slash")),
        strict=True,
    )
    share = [(estimate + planned) / whole for estimate, planned, whole in per_round]
    run.add(Figure(f"{row}, estimate + plan share", share, unit="%", at_most=0.05))


@experiment("vs-32k", rounds=5)
def vertical_slash_32k(run: Run) -> None:
    """Vertical-slash (1000, 6096), S 32768, estimate included: shares of the stages."""
    vertical_slash(run, 32_768, with_sdpa=False)


@experiment("vs-128k", rounds=3)
def vertical_slash_128k(run: Run) -> None:
    """Vertical-slash (1000, 6096), S 131072, estimate included; one round of SDPA."""
    vertical_slash(run, 131_072, with_sdpa=True)


@experiment("short", rounds=7)
def short_prompts(run: Run) -> None:
    """Whole vertical-slash calls on short prompts against dense ones: where sparsity begins to pay.

    The constant kMinSparseSeqlen of the CPU backend is the first of these lengths at which a call
    of the smaller budget is faster.
    """
    for seqlen in (512, 1024, 2048, 4096, 8192):
        shape = Shape(run.seqlen(seqlen))
        q, k, v = inputs.vertical_slash_qkv(shape, BF16)
        budgets = ((500, 700), (1000, 6096))
        own = {b: partial(minference.vs_attn, q, k, v, *b) for b in budgets}
        dense = f"dense {seqlen}"
        run.measure(
            [
                Contender(dense, partial(own_dense, q, k, v), work(shape)),
                *(Contender(f"{b} {seqlen}", call, work(shape)) for b, call in own.items()),
            ]
        )
        for b in budgets:
            run.speedup(f"vertical-slash {b} bf16 {seqlen} vs own dense", f"{b} {seqlen}", dense)


# ---- Memory, and short calls -------------------------------------------------------------------


@experiment("memory", rounds=1)
def memory(run: Run) -> None:
    """Memory of vertical-slash (1000, 6096) above q, k, v and out, S 131072, 32 heads, bf16."""
    shape = Shape(run.seqlen(131_072), heads=32, heads_kv=8)
    budget = (1000, 6096) if not run.quick else (100, 400)
    machine.return_freed_memory()
    q, k, v = inputs.vertical_slash_qkv(shape, BF16)
    torch.empty_like(q).zero_()  # Starts torch's threads: their stacks are not the call's.
    machine.return_freed_memory()
    with machine.peak_memory() as use:
        out = minference.vs_attn(q, k, v, *budget)
    resident = (use.peak_bytes - out.nbytes) / 2**20
    workspace = c_api.vertical_slash_workspace_bytes(q, k, budget) / 2**20
    row = f"memory above q, k, v, out: {budget} {shape.seqlen // 1024}K, 32 heads"
    note = f"larger of resident set {resident:.2f} and workspace {workspace:.2f}"
    run.add(Figure(row, [max(resident, workspace)], unit="MiB", at_most=16.0, note=note))


@experiment("decode", rounds=15)
def decode(run: Run) -> None:
    """Calls of few rows over 32768 keys, dense bf16: what a row costs."""
    shape = Shape(run.seqlen(32_768))
    q, k, v = inputs.random_qkv(shape, BF16)
    contenders = []
    counts = {f"{n} row{'s' if n > 1 else ''}": n for n in (1, 2, 4, 8, 16, 64)}
    for name, rows in counts.items():
        flops = causal_flops(rows, shape.seqlen, heads=shape.heads, head_dim=shape.head_dim)
        call = partial(own_dense, q[:, -rows:], k, v)
        contenders.append(Contender(name, call, Work(flops)))

    def sdpa_row() -> Tensor:
        # The last row sees every key: no mask.
        heads_first = (x.transpose(1, 2) for x in (q[:, -1:], k, v))
        return torch.nn.functional.scaled_dot_product_attention(*heads_first, enable_gqa=True)

    contenders.append(Contender("SDPA, 1 row", sdpa_row))
    run.measure(contenders)
    for name in counts:
        samples = run.samples[name]
        note = f"{(k.nbytes + v.nbytes) / samples.median / 1e9:.1f} GB/s of K and V"
        milliseconds = [1e3 * seconds for seconds in samples.values]
        run.add(Figure(f"{name} over 32K keys, bf16", milliseconds, unit="ms", note=note))
    run.speedup("1 row over 32K keys, bf16, vs SDPA", "1 row", "SDPA, 1 row")
    run.speedup("1 row over 32K keys, bf16, vs 64 rows", "1 row", "64 rows")


if __name__ == "__main__":
    main(__doc__.splitlines()[0])
