# SPDX-License-Identifier: Apache-2.0
"""Ceilings of single instructions on this GPU: the kernels of gpu_peak.cu, built when needed."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
SOURCES = ("bench/gpu_peak.cu", "csrc/cuda/check.cpp", "csrc/core/error.cpp")
MMA_ITERATIONS, POWER_ITERATIONS = 20_000, 10_000  # About 2 ms each.
READ_BYTES = 2**32


class GpuPeak:
    """Calls that enqueue one launch each and return how much it does."""

    def __init__(self) -> None:
        nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
        if not Path(nvcc).exists():
            msg = "no nvcc: the peaks of single instructions are not measured"
            raise RuntimeError(msg)
        major, minor = torch.cuda.get_device_capability()
        flags = ["-std=c++20", "-O3", "-shared", "-Xcompiler=-fPIC,-fvisibility=hidden"]
        flags += [f"-arch=sm_{major}{minor}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'include'}"]
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "gpu_peak.so"
            sources = [str(ROOT / source) for source in SOURCES]
            subprocess.run([nvcc, *flags, *sources, "-o", str(library)], check=True)
            self._library = ctypes.CDLL(str(library))
        for name in ("gpu_peak_mma", "gpu_peak_power", "gpu_peak_read"):
            getattr(self._library, name).restype = ctypes.c_double
        self._sink = torch.zeros(1, device="cuda")
        self._source = torch.randint(-(2**30), 2**30, (READ_BYTES // 4,), device="cuda").int()

    def calls(self) -> dict[str, Callable[[], float]]:
        """What is measured, with its unit -> a call."""
        sink = ctypes.c_void_p(self._sink.data_ptr())
        source = ctypes.c_void_p(self._source.data_ptr())

        def stream() -> ctypes.c_void_p:
            return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

        library = self._library
        return {
            "mma.sync bf16, TFLOP/s": lambda: library.gpu_peak_mma(MMA_ITERATIONS, sink, stream()),
            "ex2, T/s": lambda: library.gpu_peak_power(POWER_ITERATIONS, sink, stream()),
            "read only, TB/s": lambda: library.gpu_peak_read(
                source, ctypes.c_longlong(READ_BYTES), sink, stream()
            ),
        }
