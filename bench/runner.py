# SPDX-License-Identifier: Apache-2.0
"""Runs the rows of a benchmark in separate processes, and reports their figures.

    python -m bench.runner FILE...    print the figures of result files

On a CPU each row has its own process: torch.compile specialises on the thread count, pools do not
shrink, and a forced instruction set lasts for the process. On a GPU all rows share one process,
most important first; after a kernel faults, CUDA is broken for the process, and a new one runs the
remaining rows. Results are on disk after each row.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from bench import machine
from bench.harness import Figure, Run

Rows = dict[str, Callable[[Run], None]]  # By name, in the order of execution.


def title_of(row: Callable[[Run], None]) -> str:
    """The title of a function, or of a functools.partial with the axes that it binds."""
    bound = getattr(row, "keywords", {})
    axes = [str(bound[key]) for key in ("size", "head_dim", "dtype") if key in bound]
    doc = (getattr(row, "func", row).__doc__ or "").strip().splitlines()[0]
    return " ".join([doc, *axes])


def write_json(path: Path, report: dict[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(path)  # A process stopped here leaves the file of the row before.


# ---- The process that measures -------------------------------------------------------------------


def run_row(name: str, row: Callable[[Run], None], args: argparse.Namespace) -> dict[str, object]:
    """Run a row and return its results; print what failed, and keep what was measured."""
    from minference import _C

    run = Run(args)
    failure = None
    print(f"\n{name}: {title_of(row)}", flush=True)
    try:
        _C.set_cpu_isa(args.isa)
        run.isa = next((isa["name"] for isa in _C.cpu_isas() if isa["selected"]), "")
        row(run)
    except Exception as error:  # One row must not end the others.
        traceback.print_exc()
        failure = f"{type(error).__name__}: {error}".splitlines()[0]
        run.missing.append(failure)
    result = {
        "experiment": name,
        "device": args.device,
        "threads": args.threads,
        "isa": run.isa,
        "build": _C.build_info(),
        "others_cpu_share": run.others_share,
        "checked": run.checked,
        "contenders": [samples.to_json() for samples in run.samples.values() if samples.values],
        "figures": [figure.to_json() for figure in run.figures],
        "not_measured": run.missing,
        "failure": failure,
    }
    print_result(result)
    return result


def work(rows: Rows, args: argparse.Namespace) -> None:
    """Run the rows of --only, add each to the file ``args.worker``, until the time is spent."""
    end = time.perf_counter() + args.seconds
    report = json.loads(args.worker.read_text())
    if args.device == "cuda":
        report["environment"] |= machine.gpu_environment()
    else:
        machine.bind(args.threads)
        machine.reuse_freed_memory()
        torch.set_num_threads(args.threads)
    for name in args.only:
        if time.perf_counter() > end:
            return
        report["results"].append(run_row(name, rows[name], args))
        write_json(args.worker, report)
        if cuda_is_broken():
            return


def cuda_is_broken() -> bool:
    """After a kernel's fault every call fails until the process ends."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return True
    return False


# ---- The process that reports --------------------------------------------------------------------


def print_result(result: dict) -> None:
    for figure in result["figures"]:
        fields = {key: value for key, value in figure.items() if key not in ("value", "reached")}
        print("  " + Figure(**fields).line())
    for line in result["not_measured"]:
        print(f"  not measured: {line}")
    if (others := result["others_cpu_share"] or 0) > 0.02:
        print(f"  NOISY: others took {100 * others:.0f} % of the machine meanwhile")
    sys.stdout.flush()


def print_report(report: dict) -> None:
    quick = " --quick: the numbers mean nothing." if report["quick"] else ""
    print(f"\nAll figures; median [range] of the rounds.{quick}")
    for result in report["results"]:
        print_result(result)
    for name in report["left_out"]:
        print(f"out of time, not started: {name}")


def run_all(rows: Rows, args: argparse.Namespace, path: Path) -> dict:
    """Hand rows to processes until none is left; one that dies fails its current row."""
    left, end = list(args.only or rows), time.perf_counter() + args.seconds
    env = machine.environment()
    print(", ".join(f"{key} {value}" for key, value in env.items()), flush=True)
    report = {"environment": env, "quick": args.quick, "results": [], "failed": [], "left_out": []}
    write_json(path, report)
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
    while left and time.perf_counter() < end:
        batch = left if args.shares_process else left[:1]
        command = [sys.executable, "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]]
        command += ["--worker", str(path), "--seconds", str(end - time.perf_counter())]
        command += [word for name in batch for word in ("--only-row", name)]
        known = len(report["results"])
        done = subprocess.run(command, env=environment, check=False)
        report = json.loads(path.read_text())
        finished = len(report["results"]) - known
        if done.returncode != 0:  # Negative: killed by that signal.
            report["failed"].append(f"{batch[finished]}: exit status {done.returncode}")
            finished += 1
        elif finished == 0:
            break
        left = left[finished:]
        write_json(path, report)
    failures = [r for r in report["results"] if r["failure"]]
    report["failed"] += [f"{r['experiment']}: {r['failure']}" for r in failures]
    report["left_out"] = left
    write_json(path, report)
    return report


def parse_args(description: str, rows: Rows, device: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    add("--only", action="append", metavar="ROW", choices=rows, help="may be repeated")
    add("--list", action="store_true", help="name the rows and stop")
    add("--quick", action="store_true", help="small and meaningless: does it run?")
    add("--device", choices=("cuda", "cpu"), default=device)
    add("--seconds", type=float, default=1e9, help="start no further row after this long")
    add("--rounds", type=int, help="(default: as many as a contender's seconds allow)")
    add("--threads", type=int, default=len(machine.physical_cpus()), help="(default: all cores)")
    add("--isa", help="force minference's instruction set on a CPU, e.g. avx2")
    source = os.environ.get("MINFERENCE_SOURCE")
    add("--original", type=Path, metavar="DIR", default=Path(source) if source else None,
        help="MInference's source package, unpacked (default: $MINFERENCE_SOURCE)")  # fmt: skip
    add("--json", type=Path, metavar="OUT", help="write everything measured")
    add("--worker", type=Path, help=argparse.SUPPRESS)
    add("--only-row", action="append", help=argparse.SUPPRESS)  # For a worker, in place of --only.
    return parser.parse_args()


def main(description: str | None, rows: Rows, *, device: str, heads: tuple[int, int]) -> None:
    """``heads``: query heads and KV heads of the rows' shapes."""
    args = parse_args((description or "").strip().splitlines()[0], rows, device)
    args.heads, args.shares_process = heads, device == "cuda"
    if args.worker is not None:
        args.only = args.only_row
        work(rows, args)
        return
    if args.list:
        print("\n".join(f"{name:<16} {title_of(row)}" for name, row in rows.items()))
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False (--device cpu --quick: does it run?)")
    with tempfile.TemporaryDirectory() as folder:
        path = args.json or Path(folder) / "report.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        report = run_all(rows, args, path)
    print_report(report)
    if report["failed"]:
        sys.exit(f"failed: {'; '.join(report['failed'])}")


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        print(f"\n{file.name}", end="")
        print_report(json.loads(file.read_text()))
