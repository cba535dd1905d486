# SPDX-License-Identifier: Apache-2.0
"""Timing on a GPU, and the loop that runs the experiments of a file.

Contenders take turns as on the CPU (harness.py). A sample is one call between two CUDA events. The
L2 is overwritten before it, so that a call reads its inputs from memory as it would behind another
layer's work; that also keeps the GPU busy while the host enqueues, so that a call of a few launches
is timed by its kernels. A contender that makes the GPU wait for the host is timed with the waits.

Experiments run in one process, most important first; the results so far are on disk after each. A
kernel that faults breaks the process for CUDA: a new one goes on with the rows that are left.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench import machine
from bench.harness import Contender, Figure, Samples, samples_line
from bench.runner import Run, print_figures

FLUSH_BYTES = 512 * 2**20  # Several times any L2.
MAX_ROUNDS, MIN_ROUNDS = 60, 3
SECONDS_PER_CONTENDER = 0.6  # Rounds stop when this is spent, once there are MIN_ROUNDS.


class Clock:
    """Seconds of one call: by events on a GPU, by the host's clock on a CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        size = FLUSH_BYTES if self._cuda else 0
        self._flush = torch.empty(size, dtype=torch.int8, device=device)
        self._fill = 0

    def sample(self, call: Callable[[], object]) -> float:
        if not self._cuda:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        self._fill = (self._fill + 1) % 100  # Not zeros: they are cheaper to move.
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.fill_(self._fill)
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(
    contenders: Sequence[Contender], *, device: str, quick: bool = False
) -> dict[str, Samples]:
    """Warm up each contender, then time them in turn; odd rounds go in reverse order."""
    clock = Clock(device)
    results = {c.name: Samples(c.name, work=c.work) for c in contenders}
    estimate = 0.0
    for contender in contenders:
        for _ in range(1 if quick else 2):
            (contender.warm_up or contender.run)()
        estimate += clock.sample(contender.run) if contender.max_rounds is None else 0.0
    budget = SECONDS_PER_CONTENDER * len(contenders)
    rounds = 2 if quick else int(budget / max(estimate, 1e-9))
    rounds = 2 if quick else min(MAX_ROUNDS, max(MIN_ROUNDS, rounds))
    gc.collect()
    gc.disable()
    try:
        for round_idx in range(rounds):
            for contender in contenders if round_idx % 2 == 0 else reversed(contenders):
                if contender.max_rounds is None or round_idx < contender.max_rounds:
                    results[contender.name].values.append(clock.sample(contender.run))
    finally:
        gc.enable()
    return results


def captured(call: Callable[[], object]) -> Callable[[], None]:
    """A CUDA graph of the call: replaying it costs one launch."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


# ---- Experiments ---------------------------------------------------------------------------------


@dataclass
class GpuRun(Run):
    """What an experiment is given, and where its results go. ``seqlen`` and figures: see Run."""

    device: str = "cuda"
    options: argparse.Namespace = field(default_factory=argparse.Namespace)
    tried: list[str] = field(default_factory=list)  # Checks that passed, for the report.

    @property
    def copy_bytes(self) -> int:
        """Read by ``copy``, and as many written."""
        return 2**30 if not self.quick else 2**22

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def seqlen(self, full: int) -> int:
        return min(full, 1024 + full // 1024) if self.quick else full

    def measure(self, contenders: Sequence[Contender | None]) -> None:
        present = [c for c in contenders if c is not None]
        self.samples |= measure(present, device=self.device, quick=self.quick)
        for contender in present:
            print(samples_line(self.samples[contender.name]), flush=True)

    def graph(self, name: str, call: Callable[[], object]) -> Contender | None:
        """The same call as a graph; absent on a CPU."""
        if not self.on_gpu:
            return None
        return self.peer(name, lambda: Contender(name, captured(call)))

    def time(self, row: str, name: str, *, at_most_ms: float | None = None) -> None:
        if self.has(row, name):
            values = [1e3 * value for value in self.samples[name].values]
            self.add(Figure(row, values, unit="ms", at_most=at_most_ms))

    def rate(self, row: str, name: str) -> None:
        """Of the work done; beside it what dense attention in the same time would be."""
        if self.has(row, name):
            samples = self.samples[name]
            dense = statistics.median(samples.dense_rates()) / 1e12
            note = f"dense-equivalent {dense:.0f}, density {100 * samples.work.density:.2f} %"
            values = [value / 1e12 for value in samples.executed_rates()]
            note = note if samples.work.density != 1 else ""
            self.add(Figure(row, values, unit="TFLOP/s", note=note))

    def bandwidth(
        self, row: str, name: str, num_bytes: float, *, at_least: float | None = None
    ) -> None:
        """Share of what a copy reaches that was measured in the same rounds (``copy``)."""
        if self.has(row, name, COPY):
            copies = self.samples[COPY].values
            rates = [num_bytes / value for value in self.samples[name].values]
            moved = 2 * self.copy_bytes
            shares = [rate * copy / moved for rate, copy in zip(rates, copies, strict=False)]
            note = f"{num_bytes / 2**20:.0f} MiB, {statistics.median(rates) / 1e9:.0f} GB/s"
            self.add(Figure(row, shares, unit="%", at_least=at_least, note=note))


COPY = "copy"


def copy_contender(run: GpuRun) -> Contender:
    """The yardstick of bandwidth: a copy of a gigabyte, not zeros."""
    source = torch.randint(-128, 128, (run.copy_bytes,), dtype=torch.int8, device=run.device)
    target = torch.empty_like(source)
    return Contender(COPY, lambda: target.copy_(source))


@dataclass(frozen=True)
class Experiment:
    """Contenders on one set of tensors, and the figures that come of them."""

    name: str
    run: Callable[[GpuRun], None]

    @property
    def title(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


class Experiments(dict[str, Experiment]):
    """Those of one file, in the order in which they are run."""

    def register(self, name: str) -> Callable[[Callable[[GpuRun], None]], Callable[[GpuRun], None]]:
        def add(run: Callable[[GpuRun], None]) -> Callable[[GpuRun], None]:
            self[name] = Experiment(name, run)
            return run

        return add


# ---- Main ----------------------------------------------------------------------------------------


def gpu_environment() -> dict[str, object]:
    """The GPU, its clocks as found (nothing here changes them) and what drives it."""
    if not torch.cuda.is_available():
        return {"gpu": "none"}
    properties = torch.cuda.get_device_properties(0)
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit"
    query = ["nvidia-smi", "--id=0", "--format=csv,noheader", f"--query-gpu={fields}"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20)
        values = [value.strip() for value in done.stdout.strip().split(",")]
    except (OSError, subprocess.SubprocessError) as error:
        values = [f"unknown ({type(error).__name__})"]
    return {
        "gpu": properties.name,
        "sm": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
        "l2_mib": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nvidia_smi": dict(zip(fields.split(","), values, strict=False)),
    }


def run_one(experiment: Experiment, args: argparse.Namespace) -> dict[str, object] | None:
    """Results of an experiment; what failed of it is printed, what it had measured is kept."""
    from minference import _C

    run = GpuRun(
        num_threads=1, isa="", quick=args.quick, rounds=0, device=args.device, options=args
    )
    failure = None
    try:
        experiment.run(run)
    except Exception as error:  # One experiment must not take the others with it.
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
        run.missing.append(failure)
    print_figures([figure.to_json() for figure in run.figures])
    for line in run.missing:
        print(f"  not measured: {line}")
    sys.stdout.flush()
    return {
        "experiment": experiment.name,
        "device": args.device,
        "build": _C.build_info(),
        "checked": run.tried,
        "contenders": [s.to_json() for s in run.samples.values() if s.values],
        "figures": [figure.to_json() for figure in run.figures],
        "not_measured": run.missing,
        "failure": failure,
    }


def cuda_is_broken() -> bool:
    """After a fault of a kernel every call fails, until the process ends."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


def go_on_in_new_process(rows: Sequence[str], seconds_left: float) -> None:
    """Replace this process by one that adds the rows that are left to what is on disk."""
    print(f"CUDA is broken in this process: a new one goes on with {', '.join(rows)}", flush=True)
    module = f"bench.{Path(sys.argv[0]).stem}"
    more = ["--rows-left", ",".join(rows), "--seconds", str(seconds_left)]
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # What the driver holds goes with its files.
    os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:], *more])


AddOptions = Callable[[argparse.ArgumentParser], None]


def parse_args(
    description: str, experiments: Experiments, add_options: AddOptions | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--only", action="append", metavar="ROW", choices=experiments, help="may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--quick", action="store_true", help="small and meaningless: does it run?")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="start no further row after this long"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured")
    parser.add_argument("--rows-left", help=argparse.SUPPRESS)  # Of a process that broke.
    if add_options is not None:
        add_options(parser)
    return parser.parse_args()


def main(description: str, experiments: Experiments, add_options: AddOptions | None = None) -> None:
    args = parse_args(description, experiments, add_options)
    if args.list:
        for experiment in experiments.values():
            print(f"{experiment.name:<16} {experiment.title}")
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False (--device cpu --quick: does it run?)")

    env = machine.environment() | gpu_environment()
    print(machine.environment_line(env))
    if args.quick:
        print("--quick: shapes are small; the numbers mean nothing.")
    report: dict[str, object] = {"environment": env, "quick": args.quick}
    results: list[dict] = []
    if args.rows_left and args.json is not None and args.json.exists():
        results = json.loads(args.json.read_text())["results"]
    left_out, start = [], time.perf_counter()
    names = args.rows_left.split(",") if args.rows_left else list(args.only or experiments)
    for position, name in enumerate(names):
        if time.perf_counter() - start > args.seconds:
            left_out.append(name)
            continue
        print(f"\n{name}: {experiments[name].title}", flush=True)
        results.append(run_one(experiments[name], args))
        failed = [r["experiment"] for r in results if r["failure"]]
        report |= {"results": results, "failed": failed, "left_out": left_out}
        write_json(args.json, report)
        rows = names[position + 1 :]
        if cuda_is_broken() and rows:
            go_on_in_new_process(rows, args.seconds - (time.perf_counter() - start))

    print(f"\nAll figures; median [range]. {time.perf_counter() - start:.0f} s in all.")
    print_figures([figure for result in results for figure in result["figures"]])
    if left_out:
        print(f"out of time, not started: {', '.join(left_out)}")
        write_json(args.json, report | {"left_out": left_out})
    if failed := [r["experiment"] for r in results if r["failure"]]:
        sys.exit(f"failed: {', '.join(failed)}")


def write_json(path: Path | None, report: dict[str, object]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(report, indent=1) + "\n")
        partial.replace(path)  # A process stopped here leaves the file of the row before.
