# SPDX-License-Identifier: Apache-2.0
"""What a GPU can reach: copies, matrix products, single instructions.

    python -m bench.gpu_ceilings --json bench/results/<machine>/gpu_ceilings.json

These are the denominators of the shares elsewhere. Attention of other libraries: gpu_attention.py.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.harness import COPY, Contender, Figure, Run
from bench.runner import Rows, main

ROOT = Path(__file__).parent.parent
SOURCES = ("bench/gpu_ceilings.cu", "csrc/cuda/check.cpp")
READ_BYTES = 2**32
# What gpu_ceilings.cu measures: the unit, and how much of it a launch does (about 2 ms).
KERNELS = {"mma.sync bf16": ("TFLOP/s", 20_000), "ex2": ("T/s", 10_000), "read only": ("TB/s", 0)}


def memory(run: Run) -> None:
    """Bandwidth of a copy."""
    run.measure([run.copy()])
    rates = [2 * run.copy_bytes / seconds / 1e12 for seconds in run.samples[COPY].values]
    run.add(Figure("copy, bytes read and written", rates, unit="TB/s"))


def instructions(run: Run) -> None:
    """Rates of mma.sync, ex2 and loads: what bounds a kernel that does little else."""
    if not run.on_gpu:
        run.missing.append("instructions: only on a GPU")
        return
    library = build()
    library.minf_bench_ceiling.restype = ctypes.c_double
    source = torch.randint(-(2**30), 2**30, (READ_BYTES // 4,), device=run.device).int()
    sink = torch.zeros(1, device=run.device)

    def call_of(kind: int, iterations: int) -> Callable[[], float]:
        def call() -> float:
            pointers = (source.data_ptr(), sink.data_ptr(), torch.cuda.current_stream().cuda_stream)
            size = ctypes.c_longlong(iterations or READ_BYTES)
            return library.minf_bench_ceiling(kind, size, *map(ctypes.c_void_p, pointers))

        return call

    calls = {name: call_of(i, n) for i, (name, (_, n)) in enumerate(KERNELS.items())}
    amounts = {name: call() for name, call in calls.items()}
    if min(amounts.values()) < 0:
        msg = "a kernel of gpu_ceilings.cu could not be launched"
        raise RuntimeError(msg)
    run.measure([Contender(name, call) for name, call in calls.items()])
    for name, amount in amounts.items():
        rates = [amount / seconds / 1e12 for seconds in run.samples[name].values]
        run.add(Figure(name, rates, unit=KERNELS[name][0]))


def build() -> ctypes.CDLL:
    """Compile gpu_ceilings.cu for the GPU at hand."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not Path(nvcc).exists():
        msg = "no nvcc: the peaks of single instructions are not measured"
        raise RuntimeError(msg)
    major, minor = torch.cuda.get_device_capability()
    flags = ["-std=c++20", "-O3", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden"]
    flags += [f"-arch=sm_{major}{minor}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'include'}"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "gpu_ceilings.so"
        sources = [str(ROOT / source) for source in SOURCES]
        subprocess.run([nvcc, *flags, *sources, "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


def matmul(run: Run) -> None:
    """Rate of a bf16 matrix product, 8192 cubed, random data."""
    n = 8192 if not run.quick else 256
    a, b = (torch.randn(n, n, device=run.device).to(torch.bfloat16) for _ in range(2))
    run.measure([Contender("matmul bf16", lambda: a @ b)])
    rates = [2 * n**3 / seconds / 1e12 for seconds in run.samples["matmul bf16"].values]
    run.add(Figure("matmul bf16 8192^3", rates, unit="TFLOP/s"))


ROWS: Rows = {"memory": memory, "instructions": instructions, "matmul": matmul}

if __name__ == "__main__":
    main(__doc__, ROWS, device="cuda", heads=(32, 8))
