# SPDX-License-Identifier: Apache-2.0
"""What gpu_attention.py times: minference's calls and their peers, each checked when made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import minference
import torch
from minference import _C, Dense, VerticalSlash
from torch import Tensor

from bench import gpu_attention_reference as reference
from bench import gpu_original, gpu_peers, gpu_reference, inputs
from bench.gpu_attention_reference import Checked, Keys
from bench.gpu_original_source import OriginalSource, keys_of
from bench.gpu_timing import GpuRun
from bench.harness import Contender, Work, causal_flops
from bench.inputs import Shape

BF16, FP16 = torch.bfloat16, torch.float16
HEADS, HEADS_KV = 32, 8
SIZES = {f"{n}k": n * 2**10 for n in (1, 2, 4, 8, 16, 32, 128, 512)} | {"1m": 2**20}

FA2, CUDNN = gpu_peers.BACKENDS
ORIGINAL = "MInference's pipeline"

Qkv = tuple[Tensor, Tensor, Tensor]
Result = tuple[Tensor, Tensor]


def shape_of(run: GpuRun, size: str, *, head_dim: int = 128) -> Shape:
    return Shape(run.seqlen(SIZES[size]), HEADS, HEADS_KV, head_dim)


def budget_of(run: GpuRun) -> tuple[int, int]:
    return (1000, 6096) if not run.quick else (100, 200)


def qkv_of(run: GpuRun, shape: Shape, dtype: torch.dtype = BF16) -> Qkv:
    """Normal, with logits of standard deviation 3: some keys count, and out is not all rounding."""
    q, k, v = inputs.random_qkv(shape, dtype, device=run.device)
    return q.mul_(3), k, v


def work_of(q: Tensor, k: Tensor, density: float = 1.0) -> Work:
    return Work(
        causal_flops(q.shape[1], k.shape[1], heads=q.shape[2], head_dim=q.shape[3]), density
    )


def poison(run: GpuRun, *like: Tensor) -> None:
    """Fill memory that the next results of these shapes will get: what they leave out is NaN."""
    held = [torch.full_like(x, torch.nan) for x in like for _ in range(2)]
    if run.on_gpu:
        held.append(torch.full((2**28,), 255, dtype=torch.uint8, device=run.device))
        torch.cuda.synchronize()
    del held


def checked_own(
    run: GpuRun, name: str, call: Callable[[], Result], qkv: Qkv, keys: Keys, density: float = 1.0
) -> Contender:
    poison(run, qkv[0])
    Checked(*qkv, keys).out_and_lse(name, call())
    run.tried.append(f"{name}: out and lse of sampled rows and heads against float64")
    return Contender(name, call, work_of(*qkv[:2], density))


def own_dense(run: GpuRun, qkv: Qkv, *, name: str = "own dense") -> Contender:
    call = partial(minference.prefill_attn, *qkv, Dense())
    return checked_own(run, name, call, qkv, reference.dense(qkv[1].shape[1]))


def on_sm80(run: GpuRun, own: Contender) -> Contender | None:
    """A call of ours by mma.sync kernels, on a GPU whose own backend is another."""
    if not any(b["name"] == "sm90" and b["selected"] for b in _C.backends()):
        return None

    def call() -> object:
        _C.set_backend("sm80")
        try:
            return own.run()
        finally:
            _C.set_backend(None)

    return Contender(f"{own.name}, sm80", call, own.work)


def sdpa(run: GpuRun, name: str, qkv: Qkv, *, called: str = "") -> Contender | None:
    """Dense attention by a backend of torch; absent where it does not serve these tensors."""

    def make() -> Contender:
        call = gpu_peers.Sdpa(gpu_peers.BACKENDS[name], *qkv)
        Checked(*qkv, reference.dense(qkv[1].shape[1])).out(name, call.head(call()))
        return Contender(called or name, call, work_of(*qkv[:2]))

    return run.peer(name, make)


@dataclass
class KeptCall:
    """Keeps its result, to be checked afterwards: for a call of half a minute."""

    call: gpu_peers.Sdpa
    results: list[Tensor] | None = None

    def __call__(self) -> None:
        self.results = self.call()


def sdpa_once(run: GpuRun, name: str, qkv: Qkv) -> Contender | None:
    """A single round, warmed up on a short call. After measuring: :func:`drop_if_wrong`."""

    def make() -> Contender:
        kept = KeptCall(gpu_peers.Sdpa(gpu_peers.BACKENDS[name], *qkv))
        warm_up = kept.call.short(min(8192, qkv[0].shape[1]))
        warm_up()  # Here, so that a backend that does not serve this is left out.
        return Contender(name, kept, work_of(*qkv[:2]), max_rounds=1, warm_up=warm_up)

    return run.peer(name, make)


def drop_if_wrong(run: GpuRun, contender: Contender | None, qkv: Qkv) -> None:
    if contender is None:
        return
    kept = contender.run
    checked = Checked(*qkv, reference.dense(qkv[1].shape[1]))
    try:
        checked.out(contender.name, kept.call.head(kept.results))
    except RuntimeError as error:
        run.missing.append(str(error))
        del run.samples[contender.name]


# ---- minference's calls --------------------------------------------------------------------------


def given_lists(run: GpuRun, shape: Shape, qkv: Qkv, density: float, label: str) -> list[Contender]:
    """Runs, columns and blocks, each alone, of about this density."""
    none = inputs.no_index(shape)
    slash, columns = inputs.random_runs(shape, density), inputs.random_columns(shape, density)
    blocks = inputs.random_blocks(shape, density, device=run.device)
    seqlen, device = shape.seqlen, run.device
    contenders = []
    for name, vertical, distances in (("runs", none, slash), ("columns", columns, none)):
        lists = vertical.to(device), distances.to(device)
        of = inputs.vertical_slash_density(seqlen, vertical, distances)
        call = partial(minference.vs_sparse_attn, *qkv, *lists)
        keys = reference.vertical_slash(seqlen, *lists)
        contenders.append(checked_own(run, f"{name} {label}", call, qkv, keys, of))
    call = partial(minference.block_index_attn, *qkv, blocks)
    of = inputs.block_density(seqlen, blocks)
    keys = reference.blocks(seqlen, blocks)
    contenders.append(checked_own(run, f"blocks {label}", call, qkv, keys, of))
    return contenders


def checked_vertical_slash(run: GpuRun, qkv: Qkv) -> tuple[Contender, Contender, Contender]:
    """The whole call, its estimate, and stages 2 and 3 on given lists."""
    q, k, v = qkv
    budget, seqlen = budget_of(run), k.shape[1]
    estimate = partial(minference.estimate_vs, q, k, *budget)
    columns, distances = estimate()
    gpu_reference.check_vertical_slash(q, k, columns, distances)
    run.tried.append("columns and distances against float64 scores, sampled heads")
    density = inputs.vertical_slash_density(seqlen, columns, distances)
    keys = reference.vertical_slash(seqlen, columns, distances)
    whole = partial(minference.prefill_attn, q, k, v, VerticalSlash(*budget))
    compute = partial(minference.vs_sparse_attn, q, k, v, columns, distances)
    return (
        checked_own(run, "vertical-slash", whole, qkv, keys, density),
        Contender("estimate", estimate),
        checked_own(run, "plan + compute", compute, qkv, keys, density),
    )


# ---- MInference ----------------------------------------------------------------------------------


def original_contender(run: GpuRun, qkv: Qkv) -> Contender | None:
    def make() -> Contender:
        if run.options.original is None:
            msg = "--original names no folder"
            raise RuntimeError(msg)
        q, k = gpu_original.heads_first(*qkv[:2])
        _, v = gpu_original.heads_first(qkv[0], qkv[2])
        try:
            source = OriginalSource(run.options.original)
            call = partial(source.attention, q, k, v, budget_of(run))
            out = call()
        except Exception as error:  # Triton has exceptions of its own.
            msg = f"{type(error).__name__}: {error}"
            raise RuntimeError(msg) from error
        whole = Checked(*qkv, keys_of(q, k, budget_of(run)), rounds_q=True)
        whole.out(ORIGINAL, lambda head: out[head])
        run.tried.append(
            f"{ORIGINAL} against float64, sampled rows; conversion: {source.conversion}"
        )
        return Contender(ORIGINAL, call)

    return run.peer(ORIGINAL, make)
