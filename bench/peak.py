# SPDX-License-Identifier: Apache-2.0
"""Arithmetic peak of this CPU, measured by peak.cpp.

python -m bench.peak --threads 2
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

KINDS = ("avx512_fp32", "avx512_bf16", "avx2_fp32")  # The order of kKernels in peak.cpp.


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    peak = Peak()
    for kind in KINDS:
        rates = [peak.flops(kind, num_threads=args.threads) for _ in range(args.rounds)]
        if None in rates:
            print(f"{kind:12}  not on this machine")
        else:
            gflops = ", ".join(f"{rate / 1e9:.0f}" for rate in sorted(rates))
            print(f"{kind:12}  {gflops} GFLOP/s, {args.threads} threads")


if __name__ == "__main__":
    main()
