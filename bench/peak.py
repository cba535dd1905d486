# SPDX-License-Identifier: Apache-2.0
"""Arithmetic peak of this CPU, measured by peak.cpp: python -m bench.peak [THREADS]."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KINDS = ("avx512_fp32", "avx512_bf16", "avx2_fp32")  # The order of kKernels in peak.cpp.


@functools.cache
class Peak:
    """The kernels of peak.cpp, built with ``$CXX`` (default g++) when first needed."""

    def __init__(self) -> None:
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        if shutil.which(compiler[0]) is None:
            msg = f"no C++ compiler '{compiler[0]}' (set CXX): the arithmetic peak is not measured"
            raise RuntimeError(msg)
        source = Path(__file__).with_name("peak.cpp")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "peak.so"
            flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-pthread"]
            subprocess.run([*compiler, *flags, str(source), "-o", str(library)], check=True)
            self._flops = ctypes.CDLL(str(library)).minf_bench_peak_flops
        self._flops.restype = ctypes.c_double
        self._flops.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_double]

    def flops(self, kind: str, *, num_threads: int, seconds: float = 0.05) -> float | None:
        """FLOP/s of ``num_threads`` threads together; None where the machine lacks ``kind``."""
        return self._flops(KINDS.index(kind), num_threads, seconds) or None


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else len(os.sched_getaffinity(0))
    for each in KINDS:
        rates = [Peak().flops(each, num_threads=count) or 0 for _ in range(5)]
        text = ", ".join(f"{rate / 1e9:.0f}" for rate in sorted(rates))
        print(f"{each:12}  {text} GFLOP/s, {count} threads (0: not on this machine)")
