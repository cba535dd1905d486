# SPDX-License-Identifier: Apache-2.0
"""Timing: contenders take turns in one process, so that their ratios are paired.

A shared or throttling machine changes speed by tens of percent within a minute. Two programs timed
one after the other compare two moments; two that alternate within a second compare themselves. So
a ratio here is the median over rounds of the ratio within a round, never a quotient of medians.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

SETTLE_S = 0.01  # Pause before a sample: the previous contender's pool threads stop spinning.
MIN_SAMPLE_S = 0.02  # A sample repeats a short call until it lasts this long.


@dataclass(frozen=True)
class Work:
    """FLOPs of one call, by design: masked-out keys of a row and padding are not work."""

    dense: float  # What dense causal attention of this shape needs.
    density: float = 1.0  # Keys that 64-row blocks attend, over those of dense.

    @property
    def executed(self) -> float:
        return self.dense * self.density


def causal_flops(seqlen_q: int, seqlen_k: int, *, heads: int, head_dim: int) -> float:
    """4 per row, visible key and dim: 2 in QK^T, 2 in PV. Square: ``2 seqlen^2 head_dim heads``."""
    return 4.0 * head_dim * heads * (seqlen_q * seqlen_k - seqlen_q**2 / 2)


@dataclass
class Contender:
    """One thing to time. ``run`` does the call; ``warm_up`` replaces it before the first round."""

    name: str
    run: Callable[[], object]
    work: Work | None = None
    max_rounds: int | None = None  # For a contender of minutes: sit out later rounds.
    warm_up: Callable[[], object] | None = None
    is_rate: bool = False  # run() times itself and returns FLOP/s, as the peak kernels do.


@dataclass
class Samples:
    """All rounds of one contender: seconds per call, or FLOP/s for a ``rate`` contender."""

    name: str
    values: list[float] = field(default_factory=list)
    work: Work | None = None
    is_rate: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the range over the median."""
        return (max(self.values) - min(self.values)) / 2 / self.median

    def executed_rates(self) -> list[float]:
        """FLOP/s per round, of the tiles computed."""
        return self.values if self.is_rate else [self.work.executed / s for s in self.values]

    def dense_rates(self) -> list[float]:
        """FLOP/s per round, as if all of dense attention had been computed."""
        return self.values if self.is_rate else [self.work.dense / s for s in self.values]

    def to_json(self) -> dict[str, object]:
        unit = "flops_per_s" if self.is_rate else "seconds"
        report: dict[str, object] = {"name": self.name, unit: self.values, "median": self.median}
        report["spread"] = self.spread
        if self.work is not None and not self.is_rate:
            report |= {
                "density": self.work.density,
                "executed_gflops": self.work.executed / self.median / 1e9,
                "dense_equivalent_gflops": self.work.dense / self.median / 1e9,
            }
        return report


def paired(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Ratio per round, over the rounds that both took part in."""
    return [a / b for a, b in zip(numerator, denominator, strict=False)]


def speedup(of: Samples, over: Samples) -> list[float]:
    """How many times faster ``of`` is than ``over``, per round."""
    return paired(over.values, of.values)


def measure(contenders: Sequence[Contender], *, rounds: int) -> dict[str, Samples]:
    """Warm every contender up once, then time them in turn; odd rounds go in reverse order."""
    results = {c.name: Samples(c.name, work=c.work, is_rate=c.is_rate) for c in contenders}
    repeats = {}
    for contender in contenders:
        (contender.warm_up or contender.run)()
        start = time.perf_counter()
        if contender.is_rate or contender.warm_up is not None:
            repeats[contender.name] = 1
            continue
        contender.run()
        elapsed = time.perf_counter() - start
        repeats[contender.name] = max(1, math.ceil(MIN_SAMPLE_S / elapsed))

    for round_idx in range(rounds):
        for contender in contenders if round_idx % 2 == 0 else reversed(contenders):
            if contender.max_rounds is None or round_idx < contender.max_rounds:
                value = _sample(contender, repeats[contender.name])
                results[contender.name].values.append(value)
    return results


def _sample(contender: Contender, repeat: int) -> float:
    gc.collect()
    gc.disable()
    time.sleep(SETTLE_S)
    try:
        start = time.perf_counter()
        for _ in range(repeat):
            result = contender.run()
        elapsed = time.perf_counter() - start
    finally:
        gc.enable()
    return result if contender.is_rate else elapsed / repeat


# ---- Reports ---------------------------------------------------------------------------------


@dataclass
class Figure:
    """One line of the report: what was measured, per round, and what was asked for."""

    row: str
    rounds: list[float]
    unit: str = "x"  # "x", "%" (rounds hold fractions), "ms" or "MiB".
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
        low, high = self._text(min(self.rounds)), self._text(max(self.rounds))
        spread = f"[{low}, {high}]" if len(self.rounds) > 1 else ""
        columns = (
            f"{self.row:<64} {self._text(self.value):>12} {spread:>26} {demand:>13} {verdict:>4}"
        )
        return f"{columns}  {self.note}".rstrip()


def samples_line(samples: Samples) -> str:
    spread = f"+-{100 * samples.spread:.1f} %" if len(samples.values) > 1 else "1 round"
    if samples.is_rate:
        return f"    {samples.name:<40} {samples.median / 1e9:>22.0f} GFLOP/s {spread:>9}"
    line = f"    {samples.name:<40} {1e3 * samples.median:>12.2f} ms {spread:>9}"
    if samples.work is not None:
        dense = samples.work.dense / samples.median / 1e9
        executed = samples.work.executed / samples.median / 1e9
        line += f"   executed {executed:>6.0f}, dense-equivalent {dense:>6.0f} GFLOP/s"
        line += f", density {100 * samples.work.density:.2f} %"
    return line
