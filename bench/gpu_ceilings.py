# SPDX-License-Identifier: Apache-2.0
"""What a GPU reaches: copies, matrix products, single instructions.

    python -m bench.gpu_ceilings --json bench/results/<machine>/gpu_ceilings.json

The denominators of every share elsewhere. Attention of other libraries: gpu_attention.py.
"""

from __future__ import annotations

import torch

from bench.gpu_peak import GpuPeak
from bench.gpu_timing import COPY, Experiments, GpuRun, copy_contender, main
from bench.harness import Contender, Figure

BF16 = torch.bfloat16
EXPERIMENTS = Experiments()


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


if __name__ == "__main__":
    main((__doc__ or "").strip().splitlines()[0], EXPERIMENTS)
