# SPDX-License-Identifier: Apache-2.0
"""Runs experiments, each in a process of its own per thread count, and reports their figures.

A process of its own, because torch.compile specialises on the thread count (a changed one makes it
recompile until dynamo gives up and runs eagerly), because pools do not shrink, and because a forced
instruction set holds for the process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import harness, machine
from bench.harness import Contender, Figure, Samples, samples_line
from bench.peak import Peak


@dataclass
class Run:
    """What an experiment is given, and where its results go."""

    num_threads: int
    isa: str  # The instruction set that minference uses, by its own word.
    quick: bool
    rounds: int
    samples: dict[str, Samples] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # What was not measured, and why.
    others_share: float | None = None  # Of the machine's CPU time, while measuring.
    _peak: Peak | None = None

    def seqlen(self, full: int) -> int:
        """``full``, or with --quick a length that only shows that everything runs."""
        return min(full, 2048 + full // 64) if self.quick else full

    def measure(self, contenders: Sequence[Contender | None]) -> None:
        present = [c for c in contenders if c is not None]
        noise = machine.NoiseMeter()
        self.samples |= harness.measure(present, rounds=self.rounds)
        share = noise.others_share()
        if share is not None:
            self.others_share = max(share, self.others_share or 0.0)
        for contender in present:
            print(samples_line(self.samples[contender.name]), flush=True)

    def peer(self, name: str, make: Callable[[], Contender]) -> Contender | None:
        """A contender that may be absent: another library, or an instruction of this machine."""
        try:
            return make()
        except (ImportError, RuntimeError, subprocess.CalledProcessError) as error:
            self.missing.append(f"{name}: {error}".splitlines()[0])
            return None

    def peak(self, kind: str | None) -> Contender | None:
        """The arithmetic peak as a contender; None where this machine has no such instruction."""
        if kind is None:
            return None

        def make() -> Contender:
            self._peak = self._peak or Peak()
            if self._peak.flops(kind, num_threads=self.num_threads, seconds=0.001) is None:
                msg = "not on this machine"
                raise RuntimeError(msg)
            return Contender(
                peak_name(kind),
                lambda: self._peak.flops(kind, num_threads=self.num_threads),
                is_rate=True,
            )

        return self.peer(peak_name(kind), make)

    def add(self, figure: Figure) -> None:
        if self.quick:
            figure.at_least = figure.at_most = None
        self.figures.append(figure)

    # ---- figures; each is left out if one of its contenders was not measured

    def has(self, row: str, *names: str) -> bool:
        absent = [name for name in names if name not in self.samples]
        if absent:
            self.missing.append(f"{row}: no {' and no '.join(absent)}")
        return not absent

    def speedup(self, row: str, of: str, over: str, *, at_least: float | None = None) -> None:
        if self.has(row, of, over):
            ratio = harness.speedup(self.samples[of], self.samples[over])
            self.add(Figure(row, ratio, at_least=at_least))

    def share_of_peak(self, row: str, of: str, kind: str | None, *, at_least: float) -> None:
        if kind is not None and self.has(row, of, peak_name(kind)):
            rates, peak = self.samples[of].dense_rates(), self.samples[peak_name(kind)].values
            share = harness.paired(rates, peak)
            self.add(Figure(row, share, unit="%", at_least=at_least, note=f"of {kind}"))

    def executed_rate(self, row: str, of: str, over: str, *, at_least: float | None = None) -> None:
        """Rate of the work done, over the same of another contender: what sparsity costs."""
        if self.has(row, of, over):
            rates = [self.samples[name].executed_rates() for name in (of, over)]
            density = f"density {100 * self.samples[of].work.density:.1f} %"
            share = harness.paired(*rates)
            self.add(Figure(row, share, unit="%", at_least=at_least, note=density))


def peak_name(kind: str) -> str:
    return f"peak {kind}"


@dataclass(frozen=True)
class Experiment:
    """Contenders on one set of tensors, and the figures that come of them."""

    name: str
    run: Callable[[Run], None]
    rounds: int
    isa: str | None  # Forced for this experiment.
    alternate: bool  # In turn with a process of one thread; see `scaling`.

    @property
    def title(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


EXPERIMENTS: dict[str, Experiment] = {}
NUM_ALTERNATIONS = 3


def experiment(
    name: str, *, rounds: int, isa: str | None = None, alternate: bool = False
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    def register(run: Callable[[Run], None]) -> Callable[[Run], None]:
        EXPERIMENTS[name] = Experiment(name, run, rounds, isa, alternate)
        return run

    return register


# ---- One experiment, in this process -------------------------------------------------------------


def run_here(chosen: Experiment, args: argparse.Namespace) -> dict[str, object]:
    machine.bind(args.threads)
    machine.reuse_freed_memory()
    import torch
    from minference import _C

    torch.set_num_threads(args.threads)
    rounds = args.rounds or (2 if args.quick else chosen.rounds)
    run = Run(num_threads=args.threads, isa="", quick=args.quick, rounds=rounds)
    try:
        _C.set_cpu_isa(chosen.isa or args.isa)
    except NotImplementedError as error:  # Not of this machine.
        run.missing.append(str(error))
    else:
        run.isa = next(isa["name"] for isa in _C.cpu_isas() if isa["selected"])
        chosen.run(run)
    return {
        "experiment": chosen.name,
        "threads": args.threads,
        "isa": run.isa,
        "build": _C.build_info(),
        "others_cpu_share": run.others_share,
        "contenders": [samples.to_json() for samples in run.samples.values()],
        "figures": [figure.to_json() for figure in run.figures],
        "not_measured": run.missing,
    }


# ---- All of them, each in its own process --------------------------------------------------------


def run_elsewhere(chosen: Experiment, args: argparse.Namespace, threads: int) -> dict | None:
    """Return the results of a process of its own; None if it failed, its words on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", f"bench.{Path(sys.argv[0]).stem}"]
        command += ["--worker", chosen.name, "--threads", str(threads), "--json", str(result)]
        command += ["--quick"] if args.quick else []
        command += ["--isa", args.isa] if args.isa else []
        command += ["--rounds", str(args.rounds)] if args.rounds else []
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        root = Path(__file__).parent.parent
        done = subprocess.run(command, cwd=root, env=environment, check=False)
        if done.returncode != 0:  # Negative: killed by that signal.
            print(f"  FAILED with exit status {done.returncode}", flush=True)
            return None
        return json.loads(result.read_text())


def run_alternating(
    chosen: Experiment, args: argparse.Namespace, threads: int
) -> list[dict | None]:
    """Run on all threads and on one in turn, and pair the medians of neighbouring processes."""
    if threads == 1:
        return []
    results = []
    ratios: dict[str, list[float]] = {}
    for _ in range(1 if args.quick else NUM_ALTERNATIONS):
        pair = [run_elsewhere(chosen, args, n) for n in (threads, 1)]
        if None in pair:
            return [None]
        results += pair
        for many, one in zip(pair[0]["contenders"], pair[1]["contenders"], strict=True):
            ratios.setdefault(many["name"], []).append(one["median"] / many["median"])
    for name, rounds in ratios.items():
        figure = Figure(f"{threads} threads vs 1: {name}", rounds)
        # The demand is for two; more share caches and memory.
        figure.at_least = 1.9 if threads == 2 and not args.quick else None
        results[-2]["figures"].append(figure.to_json())
    return results


def print_figures(figures: Sequence[dict]) -> None:
    for figure in figures:
        fields = {k: v for k, v in figure.items() if k not in ("value", "reached")}
        print("  " + Figure(**fields).line())


def print_result(result: dict) -> None:
    print_figures(result["figures"])
    for line in result["not_measured"]:
        print(f"  not measured: {line}")
    others = result["others_cpu_share"]
    if others is not None and others > 0.02:
        print(f"  NOISY: others took {100 * others:.0f} % of the machine meanwhile")
    sys.stdout.flush()


def parse_args(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--only", action="append", metavar="ROW", choices=EXPERIMENTS, help="may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and stop")
    parser.add_argument("--quick", action="store_true", help="small and meaningless: does it run?")
    parser.add_argument(
        "--threads", default=str(len(machine.physical_cpus())), help="e.g. 2 or 1,2 (default: all)"
    )
    parser.add_argument("--rounds", type=int, help="instead of each row's own number")
    parser.add_argument("--isa", help="force minference's instruction set, e.g. avx2")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything measured")
    parser.add_argument("--worker", choices=EXPERIMENTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main(description: str) -> None:
    args = parse_args(description)
    if args.worker is not None:
        args.threads = int(args.threads)
        args.json.write_text(json.dumps(run_here(EXPERIMENTS[args.worker], args)))
        return
    if args.list:
        for chosen in EXPERIMENTS.values():
            print(f"{chosen.name:<14} {chosen.title}")
        return

    env = machine.environment()
    print(machine.environment_line(env))
    if args.quick:
        print("--quick: shapes are small; the numbers mean nothing.")
    results: list[dict] = []
    failed = []
    start = time.perf_counter()
    for threads in (int(n) for n in args.threads.split(",")):
        for name in args.only or EXPERIMENTS:
            chosen = EXPERIMENTS[name]
            print(f"\n{name}, {threads} threads: {chosen.title}", flush=True)
            if chosen.alternate:
                done = run_alternating(chosen, args, threads)
            else:
                done = [run_elsewhere(chosen, args, threads)]
            if None in done:
                failed.append(f"{name}, {threads} threads")
                continue
            for result in done:
                print_result(result)
            results += done

    print(
        f"\nAll figures; median [range] of the rounds. {time.perf_counter() - start:.0f} s in all."
    )
    for threads in dict.fromkeys(result["threads"] for result in results):
        figures = [f for r in results if r["threads"] == threads for f in r["figures"]]
        if figures:
            print(f"{threads} threads")
            print_figures(figures)
    shares = [r["others_cpu_share"] for r in results if r["others_cpu_share"] is not None]
    if shares:
        print(f"Others took {100 * statistics.median(shares):.1f} % of the machine (median).")
    if args.json is not None:
        report = {"environment": env, "quick": args.quick, "results": results, "failed": failed}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    if failed:
        sys.exit(f"failed: {'; '.join(failed)}")
