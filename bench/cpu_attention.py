# SPDX-License-Identifier: Apache-2.0
"""Prefill attention on a CPU: rates, against the machine's peak and against other libraries.

    python -m bench.cpu_attention --json bench/results/<machine>/cpu_attention.json

README.md describes each row. Each figure is printed with the bound that it should reach, and
whether it did. 8 query heads on 2 KV heads, head_dim 128, batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import minference
import torch
from minference import _C

from bench import inputs, reference, rows
from bench.harness import Contender, Figure, Run, paired
from bench.peak import Peak
from bench.peers import OrtAttention
from bench.runner import Rows, main

SDPA = "SDPA"


def peak_kind(isa: str, dtype: torch.dtype) -> str | None:
    """The peak that bounds minference on this instruction set."""
    if isa == "avx512_bf16" and dtype is rows.BF16:
        return "avx512_bf16"
    return {"avx512_bf16": "avx512_fp32", "avx512": "avx512_fp32", "avx2": "avx2_fp32"}.get(isa)


def peak(run: Run, kind: str | None) -> Contender | None:
    """The arithmetic peak as a contender; None if this machine lacks the instruction."""

    def make() -> Contender:
        flops = partial(Peak().flops, kind, num_threads=run.options.threads)
        if flops(seconds=0.001) is None:
            msg = "not on this machine"
            raise RuntimeError(msg)
        return Contender(f"peak {kind}", flops, is_rate=True)

    return run.peer(f"peak {kind}", make) if kind is not None else None


def share_of_peak(run: Run, row: str, of: str, kind: str | None, *, at_least: float) -> None:
    if kind is not None and run.has(row, of, f"peak {kind}"):
        share = paired(run.samples[of].rates(), run.samples[f"peak {kind}"].values)
        run.add(Figure(row, share, "%", at_least=at_least, note=f"of {kind}"))


def dense_8k(run: Run) -> None:
    """Dense attention, S 8192, against the fastest dense peers and the arithmetic peak."""
    shape = rows.shape_of(run, "8k")
    qkv = {dtype: inputs.random_qkv(shape, dtype) for dtype in rows.NAMES}

    def onnxruntime() -> Contender:
        call = OrtAttention(*qkv[rows.FP32], num_threads=run.options.threads)
        out = call()
        keys = reference.dense(shape.seqlen)
        reference.check_attention("onnxruntime", qkv[rows.FP32], keys, lambda head: out[0, :, head])
        return Contender("onnxruntime fp32", call, rows.work_of(*qkv[rows.FP32][:2]))

    peaks = {dtype: peak_kind(run.isa, dtype) for dtype in (rows.FP32, rows.BF16)}
    run.measure(
        [
            *(
                rows.own_dense(run, qkv[dtype], name=f"minference {rows.NAMES[dtype]}")
                for dtype in rows.NAMES
            ),
            run.peer("onnxruntime fp32", onnxruntime),
            *(
                rows.sdpa(run, SDPA, qkv[d], called=f"{SDPA} {rows.NAMES[d]}")
                for d in (rows.FP32, rows.BF16)
            ),
            *(peak(run, kind) for kind in dict.fromkeys(peaks.values())),
        ]
    )
    fp32, bf16, fp16 = (
        f"minference {rows.NAMES[dtype]}" for dtype in (rows.FP32, rows.BF16, rows.FP16)
    )
    run.speedup("dense fp32 8K vs onnxruntime fp32", fp32, "onnxruntime fp32", at_least=1.35)
    share_of_peak(run, "dense fp32 8K, share of peak", fp32, peaks[rows.FP32], at_least=0.88)
    run.speedup("dense bf16 8K vs onnxruntime fp32", bf16, "onnxruntime fp32", at_least=2.5)
    run.speedup("dense bf16 8K vs SDPA bf16", bf16, "SDPA bf16", at_least=4.8)
    share_of_peak(run, "dense bf16 8K, share of peak", bf16, peaks[rows.BF16], at_least=0.85)
    run.speedup("dense fp16 8K vs own fp32", fp16, fp32, at_least=0.95)


def dense_32k(run: Run) -> None:
    """Dense attention, bf16: the rate at S 32768 against the rate at 8192."""
    names = {size: f"minference bf16 {size}" for size in ("8k", "32k")}
    qkv = {size: inputs.random_qkv(rows.shape_of(run, size), rows.BF16) for size in names}
    run.measure([rows.own_dense(run, qkv[s], name=name) for s, name in names.items()])
    row = "dense bf16 32K, rate vs own 8K"
    run.executed_rate(row, names["32k"], names["8k"], at_least=0.97)


def avx2(run: Run) -> None:
    """Dense attention, fp32, S 8192, with AVX2 alone."""
    try:
        _C.set_cpu_isa("avx2")
    except NotImplementedError as error:  # Not on this machine.
        run.missing.append(str(error))
        return
    run.isa = "avx2"
    qkv = {
        dtype: inputs.random_qkv(rows.shape_of(run, "8k"), dtype)
        for dtype in (rows.FP32, rows.BF16)
    }
    own_names = {dtype: f"minference {rows.NAMES[dtype]}" for dtype in qkv}
    contenders = [rows.own_dense(run, qkv[dtype], name=name) for dtype, name in own_names.items()]
    run.measure([*contenders, rows.sdpa(run, SDPA, qkv[rows.FP32]), peak(run, "avx2_fp32")])
    fp32 = own_names[rows.FP32]
    run.speedup("AVX2 dense fp32 8K vs SDPA fp32", fp32, SDPA, at_least=1.25)
    share_of_peak(run, "AVX2 dense fp32 8K, share of peak", fp32, "avx2_fp32", at_least=0.85)


def threads(run: Run) -> None:
    """All threads against one, in turn."""
    many = run.options.threads
    shape = rows.shape_of(run, "8k")
    slash, none = inputs.random_runs(shape, 0.1), inputs.no_index(shape)
    density = inputs.vertical_slash_density(shape.seqlen, none, slash)
    qkv = {dtype: inputs.random_qkv(shape, dtype) for dtype in (rows.FP32, rows.BF16)}
    keys = reference.vertical_slash(shape.seqlen, none, slash)
    runs = partial(minference.vs_sparse_attn, *qkv[rows.BF16], none, slash)
    contenders = [
        rows.own_dense(run, qkv[d], name=f"dense {rows.NAMES[d]} 8K")
        for d in (rows.FP32, rows.BF16)
    ]
    contenders.append(rows.own(run, "runs bf16 8K", runs, qkv[rows.BF16], keys, density))

    def on(count: int, call: Callable[[], object]) -> Callable[[], object]:
        def run_on() -> object:
            torch.set_num_threads(count)
            try:
                return call()
            finally:
                torch.set_num_threads(many)

        return run_on

    alone = [Contender(f"{c.name}, 1 thread", on(1, c.run), c.work) for c in contenders]
    run.measure([*contenders, *alone])
    for one, all_ in zip(alone, contenders, strict=True):
        # The bound is for two threads; more of them share caches and memory.
        row, at_least = f"{many} threads vs 1: {all_.name}", 1.9 if many == 2 else None
        run.speedup(row, all_.name, one.name, at_least=at_least)


SLASH_128K = {"peers": (), "once": (SDPA,), "demands": {rows.OWN: 5.0, SDPA: 25.0}}
ROWS: Rows = {
    "dense-8k": dense_8k,
    "dense-32k": dense_32k,
    "avx2": avx2,
    "threads": threads,
    "sparse-8k": partial(
        rows.sparse, size="8k", demands={"10 %": (0.85, 0.9, 0.85)}, dtypes=(rows.BF16, rows.FP32)
    ),
    "sparse-32k": partial(
        rows.sparse, size="32k", demands={"10 %": (0.9, 0.95, 0.9)}, dtypes=(rows.BF16, rows.FP32)
    ),
    "a-shape": partial(rows.a_shape, size="8k", dtype=rows.FP32, at_least=2.2),
    "vs-32k": partial(rows.vertical_slash, size="32k", peers=()),
    "vs-128k": partial(rows.vertical_slash, size="128k", **SLASH_128K),
    "short": partial(rows.short_prompts, sizes=("512", "1k", "2k", "4k", "8k")),
    "memory": partial(rows.memory, size="128k", at_most_mib=16.0),
    "decode": partial(rows.few_rows, size="32k", counts=(1, 2, 4, 8, 16, 64), peer=SDPA),
}

if __name__ == "__main__":
    main(__doc__, ROWS, device="cpu", heads=(8, 2))
