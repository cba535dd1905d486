# SPDX-License-Identifier: Apache-2.0
"""Rows of cpu_attention.py and gpu_attention.py: what is compared, and the resulting figures.

Every call of ours and of a peer is checked when its contender is made: sampled rows of out and lse
against float64, in memory that held NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import minference
import torch
from minference import _C, AShape, BlockSparse, Dense, VerticalSlash
from torch import Tensor

from bench import inputs, original, reference
from bench.harness import Contender, Figure, Run, Work, causal_flops
from bench.inputs import BLOCK, Qkv, Shape
from bench.peers import CUDNN, FA2, Sdpa, a_shape_mask, block_mask, flex

FP32, BF16, FP16 = torch.float32, torch.bfloat16, torch.float16
NAMES = {FP32: "fp32", BF16: "bf16", FP16: "fp16"}
A_SHAPE = {"sink": 128, "window": 1024}
OWN, SLASH, FLEX = "own dense", "vertical-slash", "FlexAttention"
ORIGINAL, PLAN = "MInference's pipeline", "plan, and one row"
NO_DEMANDS: Mapping[str, float] = {}

Result = tuple[Tensor, Tensor]

# ---- Contenders ----------------------------------------------------------------------------------


def shape_of(run: Run, size: str, *, head_dim: int = 128) -> Shape:
    return Shape(run.seqlen(size), *run.options.heads, head_dim)


def work_of(q: Tensor, k: Tensor, density: float = 1.0) -> Work:
    flops = causal_flops(q.shape[1], k.shape[1], heads=q.shape[2], head_dim=q.shape[3])
    return Work(flops, density)


def poison(run: Run, like: Tensor) -> None:
    """Fill memory that the next results of this shape will get: unwritten parts are NaN."""
    held = [torch.full_like(like, torch.nan) for _ in range(2)]
    if run.on_gpu:
        held.append(torch.full((2**28,), 255, dtype=torch.uint8, device=run.device))
        torch.cuda.synchronize()
    del held


def own(
    run: Run,
    name: str,
    call: Callable[[], Result],
    qkv: Qkv,
    keys: reference.Keys,
    density: float = 1.0,
) -> Contender:
    poison(run, qkv[0])
    out, lse = call()
    reference.check_attention(name, qkv, keys, lambda h: out[0, :, h], lambda h: lse[0, h])
    run.checked.append(f"{name}: out and lse of sampled rows and heads against float64")
    return Contender(name, call, work_of(*qkv[:2], density))


def own_dense(run: Run, qkv: Qkv, *, name: str = OWN) -> Contender:
    call = partial(minference.prefill_attn, *qkv, Dense())
    return own(run, name, call, qkv, reference.dense(qkv[1].shape[1]))


def on_sm80(run: Run, contender: Contender) -> Contender | None:
    """Our call with mma.sync kernels, on a GPU whose own backend is another one."""
    if not any(b["name"] == "sm90" and b["selected"] for b in _C.backends()):
        return None

    def call() -> object:
        _C.set_backend("sm80")
        try:
            return contender.run()
        finally:
            _C.set_backend(None)

    return Contender(f"{contender.name}, sm80", call, contender.work)


def sdpa(run: Run, name: str, qkv: Qkv, *, called: str = "") -> Contender | None:
    """Dense attention by torch; absent if the backend does not serve these tensors."""

    def make() -> Contender:
        call = Sdpa(name, *qkv)
        reference.check_attention(name, qkv, reference.dense(qkv[1].shape[1]), call.head(call()))
        return Contender(called or name, call, work_of(*qkv[:2]))

    return run.peer(called or name, make)


def sdpa_once(run: Run, name: str, qkv: Qkv, kept: dict[str, list[Tensor]]) -> Contender | None:
    """A single round, warmed up on a short call; keeps the result, to be checked afterwards."""

    def make() -> Contender:
        call = Sdpa(name, *qkv)
        warm_up = call.short(min(8192, qkv[0].shape[1]))
        warm_up()  # Called here, so that a backend that does not serve this is left out.
        work = work_of(*qkv[:2])
        return Contender(name, lambda: kept.update({name: call()}), work, 1, warm_up)

    return run.peer(name, make)


def drop_if_wrong(run: Run, qkv: Qkv, kept: dict[str, list[Tensor]]) -> None:
    for name, results in kept.items():
        try:
            keys = reference.dense(qkv[1].shape[1])
            head = Sdpa.head(results)
            reference.check_attention(name, qkv, keys, head)
        except RuntimeError as error:
            run.missing.append(str(error))
            del run.samples[name]


def flex_contender(
    run: Run, qkv: Qkv, mask: object, keys: reference.Keys, density: float, block: int | None = None
) -> Contender | None:
    def make() -> Contender:
        call = flex(qkv, mask, block=block)
        out = call()
        reference.check_attention(FLEX, qkv, keys, lambda head: out[0, head])
        return Contender(FLEX, call, work_of(*qkv[:2], density))

    return run.peer(FLEX, make)


def given_lists(run: Run, shape: Shape, qkv: Qkv, density: float, label: str) -> list[Contender]:
    """Runs, columns and blocks, each alone, with about this density."""
    seqlen, none = shape.seqlen, inputs.no_index(shape)
    slash, columns = inputs.random_runs(shape, density), inputs.random_columns(shape, density)
    blocks = inputs.random_blocks(shape, density, device=run.device)
    contenders = []
    for name, vertical, distances in (("runs", none, slash), ("columns", columns, none)):
        lists = vertical.to(run.device), distances.to(run.device)
        of = inputs.vertical_slash_density(seqlen, vertical, distances)
        call = partial(minference.vs_sparse_attn, *qkv, *lists)
        keys = reference.vertical_slash(seqlen, *lists)
        contenders.append(own(run, f"{name} {label}", call, qkv, keys, of))
    call = partial(minference.block_index_attn, *qkv, blocks)
    of = inputs.block_density(seqlen, blocks)
    keys = reference.blocks(seqlen, blocks)
    return [*contenders, own(run, f"blocks {label}", call, qkv, keys, of)]


def original_contender(run: Run, qkv: Qkv) -> Contender | None:
    """MInference's own pipeline, from the sources in --original."""

    def make() -> Contender:
        if run.options.original is None:
            msg = "--original names no folder"
            raise RuntimeError(msg)
        q, k = original.heads_first(*qkv[:2])
        _, v = original.heads_first(qkv[0], qkv[2])
        try:
            source = original.Source(run.options.original)
            call = partial(source.attention, q, k, v, run.budget)
            out = call()
        except Exception as error:  # Triton has its own exceptions.
            msg = f"{type(error).__name__}: {error}"
            raise RuntimeError(msg) from error
        keys = original.keys_of(q, k, run.budget)
        reference.check_attention(ORIGINAL, qkv, keys, lambda head: out[head], rounds_q=True)
        run.checked.append(f"{ORIGINAL} against float64; conversion: {source.conversion}")
        return Contender(ORIGINAL, call)

    return run.peer(ORIGINAL, make)


# ---- Rows: what choosing keys costs --------------------------------------------------------------


def sparse(
    run: Run,
    size: str,
    *,
    demands: Mapping[str, Iterable[float]],
    dtypes: Iterable[torch.dtype] = (BF16,),
) -> None:
    """Given runs, columns and blocks against own dense.

    ``demands``: "10 %" of the keys, or "16 tiles" of 64 keys per row block, the fewest at which a
    tile should cost as much as in dense attention -> lower bounds for runs, columns, blocks.
    """
    shape = shape_of(run, size)
    for dtype in dtypes:
        qkv, dense = inputs.random_qkv(shape, dtype, device=run.device), f"dense {NAMES[dtype]}"
        shares: dict[str, tuple[Contender, float]] = {}
        for label, wanted in demands.items():
            amount, unit = label.split()
            density = int(amount) / 100 if unit == "%" else int(amount) * 2 * BLOCK / shape.seqlen
            name = f"{label} {NAMES[dtype]}"
            lists = given_lists(run, shape, qkv, min(density, 0.5), name)
            shares |= {c.name: (c, share) for c, share in zip(lists, wanted, strict=True)}
        run.measure([own_dense(run, qkv, name=dense), *(c for c, _ in shares.values())])
        for name, (_, share) in shares.items():
            row = f"{name} {size}"
            run.executed_rate(f"{row}, executed rate vs own dense", name, dense, at_least=share)
            run.speedup(f"{row}, time vs own dense", name, dense)
            run.rate(row, name)
        run.rate(f"{dense} {size}, the same tensors", dense)


def a_shape(
    run: Run,
    size: str,
    *,
    dtype: torch.dtype = BF16,
    at_least: float | None = None,
) -> None:
    """A-shape 128 + 1024 against FlexAttention compiled with the same mask."""
    shape = shape_of(run, size)
    qkv = inputs.random_qkv(shape, dtype, device=run.device)
    density = inputs.a_shape_density(shape.seqlen, **A_SHAPE)
    keys = reference.a_shape(shape.seqlen, **A_SHAPE)
    mask = a_shape_mask(shape.seqlen, run.device, **A_SHAPE)
    contenders = []
    for kind in dict.fromkeys((dtype, BF16)):
        cast = tuple(x.to(kind) for x in qkv)
        call = partial(minference.prefill_attn, *cast, AShape(**A_SHAPE))
        contenders.append(own(run, f"A-shape {NAMES[kind]}", call, cast, keys, density))
    peer = flex_contender(run, qkv, mask, keys, density)
    run.measure([*contenders, own_dense(run, qkv), peer])
    for contender in contenders:
        row, demand = f"{contender.name} {size}", at_least if contender is contenders[0] else None
        run.speedup(f"{row} vs {FLEX} {NAMES[dtype]}", contender.name, FLEX, at_least=demand)
        run.rate(row, contender.name)
    row = f"{contenders[0].name} {size}, executed rate vs own dense"
    run.executed_rate(row, contenders[0].name, OWN)


def blocks(run: Run, size: str) -> None:
    """Random lists of 64-wide blocks, 10 % of them, against FlexAttention."""
    shape = shape_of(run, size)
    qkv = inputs.random_qkv(shape, BF16, device=run.device)
    lists = inputs.random_blocks(shape, 0.1, device=run.device)
    density, keys = inputs.block_density(shape.seqlen, lists), reference.blocks(shape.seqlen, lists)
    call = partial(minference.block_index_attn, *qkv, lists)
    peer = flex_contender(run, qkv, block_mask(lists), keys, density, BLOCK)
    run.measure([own(run, "blocks", call, qkv, keys, density), peer])
    run.speedup(f"blocks of 64, 10 %, {size} vs {FLEX}", "blocks", FLEX)
    for name in ("blocks", FLEX):
        run.rate(f"blocks of 64, 10 %, {size}: {name}", name)


# ---- Rows: vertical-slash, all stages ------------------------------------------------------------


def vertical_slash(
    run: Run,
    size: str,
    *,
    peers: Iterable[str] = (FA2, CUDNN),
    once: Iterable[str] = (),
    demands: Mapping[str, float] = NO_DEMANDS,
) -> None:
    """Vertical-slash, all stages, against own dense and others.

    ``once``: peers for which a call takes long, as own dense then does too: one round, a short
    warm-up. ``demands``: how many times as fast as a contender the whole call should be.
    """
    q, k, v = qkv = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
    estimate = partial(minference.estimate_vs, q, k, *run.budget)
    lists = estimate()
    reference.check_vertical_slash(q, k, *lists)
    run.checked.append("columns and distances against float64 scores, sampled heads")
    density = inputs.vertical_slash_density(k.shape[1], *lists)
    keys = reference.vertical_slash(k.shape[1], *lists)
    call = partial(minference.prefill_attn, *qkv, VerticalSlash(*run.budget))
    whole = own(run, SLASH, call, qkv, keys, density)
    call = partial(minference.vs_sparse_attn, *qkv, *lists)
    compute = own(run, "plan + compute", call, qkv, keys, density)
    plan = partial(minference.vs_sparse_attn, q[:, -1:], k, v, *lists)
    contenders = [whole, Contender("estimate", estimate), Contender(PLAN, plan), compute]
    contenders += [sdpa(run, name, qkv) for name in peers]
    kept: dict[str, list[Tensor]] = {}
    if once:
        short = [x[:, :2048] for x in qkv]
        calls = [partial(minference.prefill_attn, *x, Dense()) for x in (qkv, short)]
        max_rounds = 1 if run.on_gpu else None
        contenders.append(Contender(OWN, calls[0], work_of(q, k), max_rounds, calls[1]))
        contenders += [sdpa_once(run, name, qkv, kept) for name in once]
    else:
        contenders += [own_dense(run, qkv), on_sm80(run, whole)]
        contenders.append(run.graph(f"{SLASH}, graph", whole.run))
        contenders.append(original_contender(run, qkv) if run.on_gpu else None)
    run.measure(contenders)
    drop_if_wrong(run, qkv, kept)

    row = f"{SLASH} {run.budget} {size}, whole call"
    for over in (OWN, *peers, *once, f"{SLASH}, sm80", ORIGINAL):
        if over in run.samples or over in (*peers, *once):
            run.speedup(f"{row} vs {over}", SLASH, over, at_least=demands.get(over))
    run.rate(row, SLASH)
    for name in (SLASH, f"{SLASH}, graph", ORIGINAL):
        if name in run.samples:
            run.time(f"{name} {run.budget} {size}, per layer", name)
    run.executed_rate(f"{row}, executed rate vs own dense", "plan + compute", OWN)
    # An upper bound, because the plan is timed inside a call for the last row alone.
    at_most = 0.05 if not run.on_gpu or k.shape[1] >= 2**17 else None
    for names, limit in ((("estimate", PLAN), at_most), (("estimate",), None)):
        rounds_of = [run.samples[name].values for name in (*names, SLASH)]
        shares = [sum(parts) / all_ for *parts, all_ in zip(*rounds_of, strict=True)]
        run.add(Figure(f"{row}, share of {' + '.join(names)}", shares, "%", at_most=limit))


def short_prompts(run: Run, sizes: Iterable[str]) -> None:
    """Whole vertical-slash calls on short prompts against dense ones: where sparsity begins to pay.

    The backend's constant kMinSparseSeqlen is the first length at which (500, 700) is faster.
    """
    for size in sizes:
        qkv = inputs.vertical_slash_qkv(shape_of(run, size), BF16, device=run.device)
        dense = f"dense {size}"
        contenders = [own_dense(run, qkv, name=dense)]
        for budget in ((500, 700), run.budget):
            call = partial(minference.prefill_attn, *qkv, VerticalSlash(*budget))
            contenders.append(Contender(f"{budget} {size}", call))
        run.measure(contenders)
        for contender in contenders[1:]:
            run.speedup(f"{SLASH} {contender.name} vs own dense", contender.name, dense)


def memory(run: Run, size: str, *, at_most_mib: float) -> None:
    """Memory of a vertical-slash call above q, k, v, out and lse, 32 heads."""
    qkv = inputs.vertical_slash_qkv(Shape(run.seqlen(size), 32, 8), BF16, device=run.device)
    torch.empty_like(qkv[0]).zero_()  # Starts torch's threads: their stacks are not the call's.
    results: list[Tensor] = []
    call = partial(minference.prefill_attn, *qkv, VerticalSlash(*run.budget))
    peak = run.peak_bytes(lambda: results.extend(call()))
    above = (peak - sum(x.nbytes for x in results)) / 2**20
    row = f"memory above q, k, v, out, lse: {SLASH} {run.budget} {size}"
    run.add(Figure(row, [above], "MiB", at_most=at_most_mib))


# ---- Rows: heads of different patterns, few rows -------------------------------------------------


def mixed(run: Run, size: str) -> None:
    """Four patterns, a quarter of the heads each, in one call, against a call for each."""
    shape = shape_of(run, size)
    q, k, _ = qkv = inputs.vertical_slash_qkv(shape, BF16, device=run.device)
    top_k, quarter = 100 if not run.quick else 8, shape.heads // 4
    patterns = [Dense(), AShape(**A_SHAPE), VerticalSlash(*run.budget), BlockSparse(top_k)]
    per_head = [pattern for pattern in patterns for _ in range(quarter)]
    parts = list(zip(*(x.chunk(4, dim=2) for x in qkv), strict=True))
    seqlen = shape.seqlen
    keys = [
        reference.dense(seqlen),
        reference.a_shape(seqlen, **A_SHAPE),
        reference.vertical_slash(seqlen, *minference.estimate_vs(q, k, *run.budget)),
        reference.blocks(seqlen, minference.estimate_blocks(q, k, top_k)),
    ]

    def apart() -> list[Result]:
        return [minference.prefill_attn(*x, p) for x, p in zip(parts, patterns, strict=True)]

    # By the library's own count of tiles; the ratio of the two calls does not depend on it.
    density = minference.density(q, k, per_head).mean().item()
    call = partial(minference.prefill_attn, *qkv, per_head)

    def keys_of(position: Tensor, head: int) -> Tensor:
        return keys[head // quarter](position, head)

    together = own(run, "together", call, qkv, keys_of, density)
    run.measure(
        [
            together,
            Contender("apart", apart, work_of(q, k, density)),
            run.graph("together, graph", together.run),
            run.graph("apart, graph", apart),
        ]
    )
    row = f"four patterns {size}, one call"
    run.speedup(f"{row} vs four", "together", "apart", at_least=1.0)
    run.speedup(f"{row} vs four, both as graphs", "together, graph", "apart, graph")
    run.rate(row, "together")


def few_rows(run: Run, size: str, *, counts: Iterable[int], peer: str) -> None:
    """Calls of few rows: what bounds a row is reading K and V, so a copy stands beside it."""
    q, k, v = inputs.random_qkv(shape_of(run, size), BF16, device=run.device)
    names = {f"{n} row{'s' * (n > 1)}": min(n, k.shape[1]) for n in counts}
    contenders: list[Contender | None] = [run.copy()]
    for name, rows in names.items():
        qkv = q[:, -rows:], k, v
        contender = own_dense(run, qkv, name=name)
        contenders += [contender, run.graph(f"{name}, graph", contender.run)]
        if rows == 1 or run.on_gpu:  # For a few rows torch makes a mask on the CPU.
            contenders.append(sdpa(run, peer, qkv, called=f"{name}, {peer}"))
    run.measure(contenders)
    moved = k.nbytes + v.nbytes
    for name in names:
        row = f"{name} over {size} keys"
        run.time(row, name)
        run.bandwidth(f"{row}, K and V once, share of copy bandwidth", name, moved)
        if run.on_gpu:
            run.bandwidth(f"{row}, the same as a graph", f"{name}, graph", moved)
        if run.on_gpu or name == "1 row":
            run.speedup(f"{row} vs {peer}", name, f"{name}, {peer}")
    first, *_, last = names
    run.speedup(f"{first} over {size} keys vs {last}", first, last)
