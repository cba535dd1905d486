# SPDX-License-Identifier: Apache-2.0
"""Timing: contenders alternate in one process, so that their ratios are paired.

The speed of a shared or throttling machine changes by tens of percent within a minute. Two programs
timed one after the other compare two moments; two that alternate within a second compare
themselves. So a ratio here is the median over rounds of the ratio within a round, never a quotient
of medians.

On a GPU a sample is one call between two CUDA events. The L2 is overwritten first, so that a call
reads its inputs from memory, as it would after another layer's work. This also keeps the GPU busy
while the host enqueues, so that a call of a few launches is timed by its kernels.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import torch

from bench import machine

SETTLE_S = 0.01  # Before a CPU sample: lets the previous contender's threads stop spinning.
MIN_SAMPLE_S = 0.02  # A CPU sample repeats a short call until it takes this long.
FLUSH_BYTES = 512 * 2**20  # Several times any L2.
MIN_ROUNDS = 3
COPY = "copy"


@dataclass(frozen=True)
class Work:
    """FLOPs of one call by definition: a row's masked keys and padding are not work."""

    dense: float  # What dense causal attention of this shape needs.
    density: float = 1.0  # Keys that 64-row blocks attend, over those of dense.


def causal_flops(seqlen_q: int, seqlen_k: int, *, heads: int, head_dim: int) -> float:
    """4 per row, visible key and dim: 2 in QK^T, 2 in PV. Square: ``2 seqlen^2 head_dim heads``."""
    return 4.0 * head_dim * heads * (seqlen_q * seqlen_k - seqlen_q**2 / 2)


@dataclass
class Contender:
    """One thing to time. ``run`` makes the call; ``warm_up`` replaces it before the first round."""

    name: str
    run: Callable[[], object]
    work: Work | None = None
    max_rounds: int | None = None  # A contender that takes minutes skips later rounds.
    warm_up: Callable[[], object] | None = None
    is_rate: bool = False  # run() times itself and returns FLOP/s, as the peak kernels do.


@dataclass
class Samples:
    """All rounds of one contender: seconds per call, or FLOP/s where ``is_rate``."""

    name: str
    work: Work | None
    is_rate: bool
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def rates(self, *, dense: bool = False) -> list[float]:
        """FLOP/s per round: executed, or as if all of dense attention had been computed."""
        if self.is_rate:
            return self.values
        flops = self.work.dense * (1 if dense else self.work.density)
        return [flops / seconds for seconds in self.values]

    def to_json(self) -> dict[str, object]:
        """``spread`` is half the range over the median."""
        unit = "flops_per_s" if self.is_rate else "seconds"
        spread = (max(self.values) - min(self.values)) / 2 / self.median
        report = {"name": self.name, unit: self.values, "median": self.median, "spread": spread}
        if self.work is not None:
            report["density"] = self.work.density
            for name, dense in (("executed", False), ("dense_equivalent", True)):
                report[f"{name}_gflops"] = statistics.median(self.rates(dense=dense)) / 1e9
        return report

    def line(self) -> str:
        report = self.to_json()
        value = f"{1e3 * self.median:>12.2f} ms"
        if self.is_rate:
            value = f"{self.median / 1e9:>9.0f} GFLOP/s"
        line = f"    {self.name:<40} {value} +-{100 * report['spread']:.1f} %"
        if self.work is not None:
            line += f"   executed {report['executed_gflops']:.0f}, dense-equivalent"
            line += f" {report['dense_equivalent_gflops']:.0f} GFLOP/s"
            line += f", density {100 * self.work.density:.2f} %"
        return line


class Clock:
    """Times one call: by events on a GPU, by the host's clock on a CPU."""

    def __init__(self, device: str) -> None:
        self._flush = None
        self.seconds, self.max_rounds = 5.0, 15  # For each contender of an experiment.
        if device == "cuda":
            self.seconds, self.max_rounds = 0.6, 60
            self._flush = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device)
        self._fill = 0

    def repeats(self, seconds: float) -> int:
        """How often a sample repeats a call that takes so many seconds."""
        return 1 if self._flush is not None else max(1, math.ceil(MIN_SAMPLE_S / seconds))

    def sample(self, contender: Contender, repeat: int = 1) -> float:
        if self._flush is None:
            time.sleep(SETTLE_S)
            start_s = time.perf_counter()
            for _ in range(repeat):
                result = contender.run()
            return result if contender.is_rate else (time.perf_counter() - start_s) / repeat
        self._fill = (self._fill + 1) % 100  # Not zeros, which are cheaper to move.
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.fill_(self._fill)
        start.record()
        contender.run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(
    contenders: Sequence[Contender], clock: Clock, rounds: int | None
) -> dict[str, Samples]:
    """Warm every contender up once, then alternate them; odd rounds run in reverse order."""
    results = {c.name: Samples(c.name, c.work, c.is_rate) for c in contenders}
    repeats = dict.fromkeys(results, 1)
    one_round = 1e-9
    for contender in contenders:
        (contender.warm_up or contender.run)()
        if contender.warm_up is None and not contender.is_rate:
            seconds = clock.sample(contender)
            repeats[contender.name] = clock.repeats(seconds)
            one_round += seconds
    if rounds is None:
        rounds = int(clock.seconds * len(contenders) / one_round)
        rounds = min(clock.max_rounds, max(MIN_ROUNDS, rounds))
    gc.collect()
    gc.disable()
    try:
        for round_idx in range(rounds):
            for contender in contenders if round_idx % 2 == 0 else reversed(contenders):
                if contender.max_rounds is None or round_idx < contender.max_rounds:
                    value = clock.sample(contender, repeats[contender.name])
                    results[contender.name].values.append(value)
    finally:
        gc.enable()
    return results


# ---- Figures -------------------------------------------------------------------------------------


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Ratio per round, over the rounds in which both took part."""
    return [a / b for a, b in zip(numerator, denominator, strict=False)]


@dataclass
class Figure:
    """One line of the report: what was measured, per round, and the bound for it."""

    row: str
    rounds: list[float]
    unit: str = "x"  # "%": rounds hold fractions.
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool | None:
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"value": self.value, "reached": self.reached}

    def _text(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        return f"{value:.2f}{'' if self.unit == 'x' else ' '}{self.unit}"

    def line(self) -> str:
        limit, sign = (self.at_least, ">=") if self.at_most is None else (self.at_most, "<=")
        demand = "" if limit is None else f"{sign} {self._text(limit)}"
        verdict = {True: "yes", False: "NO", None: ""}[self.reached]
        spread = f"[{self._text(min(self.rounds))}, {self._text(max(self.rounds))}]"
        spread = spread if len(self.rounds) > 1 else ""
        text = f"{self.row:<64} {self._text(self.value):>12} {spread:>26} {demand:>13} {verdict:>4}"
        return f"{text}  {self.note}".rstrip()


# ---- What an experiment is given, and where its results go ---------------------------------------


@dataclass
class Run:
    options: argparse.Namespace  # See runner.py.
    samples: dict[str, Samples] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # What was not measured, and why.
    checked: list[str] = field(default_factory=list)  # Against float64, before it was timed.
    others_share: float | None = None  # Others' share of CPU time while measuring.
    isa: str = ""  # The instruction set that minference reports to use.

    @property
    def device(self) -> str:
        return self.options.device

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def quick(self) -> bool:
        return self.options.quick

    @property
    def copy_bytes(self) -> int:
        """Bytes that ``copy`` reads; it writes as many."""
        return 2**30 if not self.quick else 2**22

    @property
    def budget(self) -> tuple[int, int]:
        """Columns and distances of vertical-slash."""
        return (1000, 6096) if not self.quick else (100, 200)

    def seqlen(self, size: str) -> int:
        """Parse "512", "8k" or "1m"; with --quick a length that only shows that everything runs."""
        full = int(size.rstrip("km")) * {"k": 2**10, "m": 2**20}.get(size[-1], 1)
        return min(full, 1024 + full // 1024) if self.quick else full

    def measure(self, contenders: Sequence[Contender | None]) -> None:
        present = [c for c in contenders if c is not None]
        rounds = 2 if self.quick else self.options.rounds
        noise = machine.NoiseMeter()
        measured = measure(present, Clock(self.device), rounds)
        self.samples |= measured
        self.others_share = max(noise.others_share(), self.others_share or 0.0)
        for samples in measured.values():
            print(samples.line(), flush=True)

    def peer(self, name: str, make: Callable[[], Contender]) -> Contender | None:
        """A contender that may be absent: another library, or an instruction of this machine."""
        try:
            return make()
        except (ImportError, RuntimeError, subprocess.CalledProcessError) as error:
            self.missing.append(f"{name}: {error}".splitlines()[0])
            return None

    def graph(self, name: str, call: Callable[[], object]) -> Contender | None:
        """The same call as a CUDA graph, replayed by one launch; absent on a CPU."""
        return self.peer(name, lambda: Contender(name, captured(call))) if self.on_gpu else None

    def copy(self) -> Contender:
        """The reference for bandwidth: a copy of a gigabyte, not zeros."""
        source = torch.randint(-128, 128, (self.copy_bytes,), dtype=torch.int8, device=self.device)
        target = torch.empty_like(source)
        return Contender(COPY, lambda: target.copy_(source))

    def peak_bytes(self, call: Callable[[], object]) -> int:
        """How far memory rises in a call: the allocator's on a GPU, otherwise the resident set."""
        if not self.on_gpu:
            return machine.peak_bytes(call)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    # ---- figures; each is left out if one of its contenders was not measured

    def has(self, row: str, *names: str) -> bool:
        absent = [name for name in names if name not in self.samples]
        if absent:
            self.missing.append(f"{row}: no {' and no '.join(absent)}")
        return not absent

    def add(self, figure: Figure) -> None:
        if self.quick:
            figure.at_least = figure.at_most = None
        self.figures.append(figure)

    def speedup(self, row: str, of: str, over: str, *, at_least: float | None = None) -> None:
        if self.has(row, of, over):
            ratio = paired(self.samples[over].values, self.samples[of].values)
            self.add(Figure(row, ratio, at_least=at_least))

    def executed_rate(self, row: str, of: str, over: str, *, at_least: float | None = None) -> None:
        """Rate of the work done, over that of another contender: what sparsity costs."""
        if self.has(row, of, over):
            share = paired(*(self.samples[name].rates() for name in (of, over)))
            note = f"density {100 * self.samples[of].work.density:.1f} %"
            self.add(Figure(row, share, unit="%", at_least=at_least, note=note))

    def time(self, row: str, name: str, *, at_most_ms: float | None = None) -> None:
        if self.has(row, name):
            values = [1e3 * value for value in self.samples[name].values]
            self.add(Figure(row, values, unit="ms", at_most=at_most_ms))

    def rate(self, row: str, name: str) -> None:
        """Rate of the work done, and the rate if dense attention had taken the same time."""
        if self.has(row, name):
            samples, note = self.samples[name], ""
            if samples.work.density != 1:
                dense = statistics.median(samples.rates(dense=True)) / 1e12
                note = f"dense-equivalent {dense:.0f}, density {100 * samples.work.density:.2f} %"
            values = [value / 1e12 for value in samples.rates()]
            self.add(Figure(row, values, unit="TFLOP/s", note=note))

    def bandwidth(
        self, row: str, name: str, num_bytes: float, *, at_least: float | None = None
    ) -> None:
        """Share of the bandwidth of a copy that was measured in the same rounds."""
        if self.has(row, name, COPY):
            rates = [num_bytes / value for value in self.samples[name].values]
            copies = [2 * self.copy_bytes / value for value in self.samples[COPY].values]
            note = f"{num_bytes / 2**20:.0f} MiB, {statistics.median(rates) / 1e9:.1f} GB/s"
            share = paired(rates, copies)
            self.add(Figure(row, share, unit="%", at_least=at_least, note=note))


def captured(call: Callable[[], object]) -> Callable[[], None]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
