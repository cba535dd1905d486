# SPDX-License-Identifier: Apache-2.0
"""The machine of the benchmark: its cores, what it is, who else uses it, how much memory."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

# ---- Cores ---------------------------------------------------------------------------------------


def physical_cpus() -> list[int]:
    """One logical CPU per physical core, of those this process may run on."""
    cpus: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cpus.setdefault(siblings.read_text() if siblings.exists() else str(cpu), cpu)
    return list(cpus.values())


def bind(num_threads: int) -> None:
    """Confine the process to ``num_threads`` physical cores.

    NOTE: OMP_PROC_BIND would not do: it pins only the main thread, to one core, and every thread
    that another library starts from it (onnxruntime's pool, the peak kernels) then inherits that
    core.
    """
    cpus = physical_cpus()
    if num_threads > len(cpus):
        msg = f"--threads {num_threads}: this process may use {len(cpus)} physical cores"
        raise SystemExit(msg)
    os.sched_setaffinity(0, cpus[:num_threads])


class NoiseMeter:
    """Share of the machine's CPU time that other processes or the hypervisor used."""

    def __init__(self) -> None:
        self._start = self._read()

    @staticmethod
    def _read() -> tuple[float, ...]:
        # user nice system idle iowait irq softirq steal, in ticks.
        ticks = [int(text) for text in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        own = os.times()
        own_ticks = (own.user + own.system) * os.sysconf("SC_CLK_TCK")
        return float(sum(ticks) - ticks[3] - ticks[4]), own_ticks, float(sum(ticks))

    def others_share(self) -> float:
        busy, own, total = (b - a for a, b in zip(self._start, self._read(), strict=True))
        return max(0.0, busy - own) / total if total > 0 else 0.0


# ---- Everything a reader needs to judge or repeat a number ---------------------------------------


def environment() -> dict[str, object]:
    return {
        "cpu": _cpu_model(),
        "cores": len(physical_cpus()),
        "logical_cpus": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "compiler": _output(os.environ.get("CXX", "g++"), "--version").split("\n")[0],
        **{name: _version(name) for name in ("torch", "onnxruntime", "minference")},
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python -m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
    }


def gpu_environment() -> dict[str, object]:
    """The GPU, its current clocks (nothing here changes them) and its driver."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"
    values = _output("nvidia-smi", "--id=0", "--format=csv,noheader", f"--query-gpu={fields}")
    return {
        "gpu": properties.name,
        "sm": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nvidia_smi": dict(zip(fields.split(","), values.split(", "), strict=False)),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo").read_text()
    names = ("model name", "cpu family", "model")
    found = [re.search(rf"^{name}\s*: (.*)$", info, re.MULTILINE) for name in names]
    if None in found:
        return platform.processor() or platform.machine()
    return "{} (family {} model {})".format(*(match[1] for match in found))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    if commit := os.environ.get("BENCH_COMMIT"):  # For a copy of the tree without its history.
        return commit
    commit = _output("git", "rev-parse", "--short=12", "HEAD") or "unknown"
    return commit + "+changes" if _output("git", "status", "--porcelain") else commit


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


# ---- Memory --------------------------------------------------------------------------------------

M_MMAP_THRESHOLD, M_MMAP_MAX, M_TRIM_THRESHOLD = -3, -4, -1  # glibc, malloc.h.


def reuse_freed_memory() -> None:
    """Make malloc keep freed memory, as the allocators of serving processes do.

    By default glibc maps a result above 32 MiB anew in each call, and the kernel clears it page by
    page: milliseconds that belong to no contender.
    """
    _mallopt((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1))


def return_freed_memory() -> None:
    """Make malloc return freed memory at once, so that a measurement of memory sees all of it."""
    libc = _mallopt((M_MMAP_THRESHOLD, 64 * 1024), (M_TRIM_THRESHOLD, 64 * 1024))
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _mallopt(*options: tuple[int, int]) -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc only.
        for option, value in options:
            libc.mallopt(option, value)
    return libc


def peak_bytes(call: Callable[[], object]) -> int:
    """How far the resident set rises in a call (Linux)."""
    return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # Resets VmHWM to the current resident set.
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
