# SPDX-License-Identifier: Apache-2.0
"""What a GPU reaches: copies, matrix products, and attention of other libraries.

    python -m bench.gpu_ceilings --json bench/results/<machine>/gpu_ceilings.json

The ceilings are the denominators of every share elsewhere; the peers are what dense attention costs
today. bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import inputs, peers
from bench.gpu_peak import GpuPeak
from bench.gpu_timing import COPY, Experiments, GpuRun, copy_contender, main
from bench.harness import Contender, Figure, Work, causal_flops
from bench.inputs import Shape

BF16 = torch.bfloat16
EXPERIMENTS = Experiments()
SDPA = {"FlashAttention-2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}


@EXPERIMENTS.register("memory")
def memory(run: GpuRun) -> None:
    """Bandwidth of a copy."""
    run.measure([copy_contender(run)])
    rates = [2 * run.copy_bytes / seconds / 1e12 for seconds in run.samples[COPY].values]
    run.add(Figure("copy, bytes read and written", rates, unit="TB/s"))


@EXPERIMENTS.register("instructions")
def instructions(run: GpuRun) -> None:
    """Rates of mma.sync, ex2 and loads: what bounds a kernel that does little else."""
    if not run.on_gpu:
        run.missing.append("instructions: only on a GPU")
        return
    calls = GpuPeak().calls()
    amounts = {name: call() for name, call in calls.items()}
    if min(amounts.values()) < 0:
        msg = "a kernel of gpu_peak.cu could not be launched"
        raise RuntimeError(msg)
    run.measure([Contender(name, call) for name, call in calls.items()])
    for name, amount in amounts.items():
        rates = [amount / seconds / 1e12 for seconds in run.samples[name].values]
        run.add(Figure(name.split(",")[0], rates, unit=name.split(", ")[1]))


@EXPERIMENTS.register("matmul")
def matmul(run: GpuRun) -> None:
    """Rate of a bf16 matrix product, 8192 cubed, random data."""
    n = 8192 if not run.quick else 256
    a, b = (torch.randn(n, n, device=run.device).to(BF16) for _ in range(2))
    run.measure([Contender("matmul bf16", lambda: a @ b)])
    rates = [2 * n**3 / seconds / 1e12 for seconds in run.samples["matmul bf16"].values]
    run.add(Figure("matmul bf16 8192^3", rates, unit="TFLOP/s"))


def sdpa_call(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Tensor]:
    """Dense causal attention by one backend of torch; heads first, KV heads already repeated."""

    def call() -> Tensor:
        with sdpa_kernel(backend), torch.no_grad():
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return call


def sdpa(run: GpuRun, size: str, seqlen: int) -> None:
    shape = Shape(run.seqlen(seqlen), heads=32, heads_kv=8)
    q, k, v = (x.transpose(1, 2) for x in inputs.random_qkv(shape, BF16, device=run.device))
    k, v = (x.repeat_interleave(shape.heads // shape.heads_kv, dim=1) for x in (k, v))
    work = Work(causal_flops(shape.seqlen, shape.seqlen, heads=32, head_dim=128))
    # The math backend of the first rows alone: at full length its scores would not fit.
    rows = min(shape.seqlen, 1024)
    want = sdpa_call(SDPBackend.MATH, *(x[:, :, :rows] for x in (q, k, v)))()

    def contender(name: str, backend: SDPBackend) -> Contender:
        call = sdpa_call(backend, q, k, v)
        peers.check_close(name, call()[:, :, :rows], want)
        return Contender(name, call, work)

    run.measure([run.peer(name, partial(contender, name, SDPA[name])) for name in SDPA])
    for name in SDPA:
        row = f"dense {size}, SDPA {name}"
        if run.has(row, name):
            rates = [rate / 1e12 for rate in run.samples[name].dense_rates()]
            run.add(Figure(row, rates, unit="TFLOP/s"))


@EXPERIMENTS.register("sdpa-128k")
def sdpa_128k(run: GpuRun) -> None:
    """Dense causal attention of torch, S 131072: FlashAttention-2 and cuDNN backends."""
    sdpa(run, "128k", 2**17)


@EXPERIMENTS.register("sdpa-32k")
def sdpa_32k(run: GpuRun) -> None:
    """Dense causal attention of torch, S 32768."""
    sdpa(run, "32k", 2**15)


@EXPERIMENTS.register("sdpa-8k")
def sdpa_8k(run: GpuRun) -> None:
    """Dense causal attention of torch, S 8192."""
    sdpa(run, "8k", 2**13)


@EXPERIMENTS.register("flex-a-shape")
def flex_a_shape(run: GpuRun) -> None:
    """A-shape 128 + 1024 by FlexAttention, compiled, S 131072."""
    shape = Shape(run.seqlen(2**17), heads=32, heads_kv=8)
    keys = {"sink": 128, "window": 1024}
    q, k, v = inputs.random_qkv(shape, BF16, device=run.device)
    density = inputs.a_shape_density(shape.seqlen, **keys)
    work = Work(causal_flops(shape.seqlen, shape.seqlen, heads=32, head_dim=128), density)
    rows = min(shape.seqlen, 2048)

    def contender() -> Contender:
        call = peers.flex_a_shape(q, k, v, **keys)
        first = [x[:, :rows] for x in (q, k, v)]
        want = peers.dense_a_shape(*first, **keys)
        peers.check_close("FlexAttention", call()[:, :rows], want)
        return Contender("FlexAttention", call, work)

    run.measure([run.peer("FlexAttention", contender)])
    row = "A-shape 128 + 1024 128k, FlexAttention"
    run.time(row, "FlexAttention")
    if "FlexAttention" in run.samples:
        rates = [rate / 1e12 for rate in run.samples["FlexAttention"].executed_rates()]
        run.add(Figure(f"{row}, executed", rates, unit="TFLOP/s"))


if __name__ == "__main__":
    main((__doc__ or "").strip().splitlines()[0], EXPERIMENTS)
