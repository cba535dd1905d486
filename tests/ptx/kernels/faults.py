# SPDX-License-Identifier: Apache-2.0
"""Plants each fault of fault_list.py in the generated PTX, and checks that its test finds it.

    python faults.py BUILD_FOLDER [--only TEXT]    run all; exit status 1 if one goes unnoticed
    python faults.py --apply NAME <PTX >PTX        called by the interpreter, as PTXSIM_FILTER

A fault that matches nowhere is also a failure: the kernels have changed, and the list must follow.
So is a test that fails without a fault: all tests run unchanged first.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fault_list import FAULTS, TESTS, Fault

TIMEOUT_SECONDS = 300
ENTRY = re.compile(r"(?=^\.visible \.entry |^\.entry )", re.MULTILINE)


def planted(text: str, fault: Fault) -> tuple[str, int]:
    """Return the module's text with the fault, and the number of places where it was planted."""
    count = 0
    parts = ENTRY.split(text)
    for i, part in enumerate(parts):
        name = part.split("(", 1)[0]
        if i > 0 and re.search(fault.kernels, name):
            parts[i], places = re.subn(fault.pattern, fault.text, part)
            count += places
    return "".join(parts), count


def apply(name: str) -> None:
    (fault,) = [fault for fault in FAULTS if fault.name == name]
    text, count = planted(sys.stdin.read(), fault)
    sys.stdout.write(text)
    if log := os.environ.get("FAULT_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{count}\n")


@dataclass
class Outcome:
    text: str
    caught: bool
    seconds: float


def programs(build: Path) -> dict[str, Path]:
    """Return where the tests' programs lie."""
    folders = build / "tests/ptx/kernels", build / "tests/gpu"
    return {
        name: next(f / name for f in folders if (f / name).exists()) for name, *_ in TESTS.values()
    }


def last_words(output: str) -> str:
    """Return the interpreter's error, or the first check that failed."""
    lines = output.splitlines()
    said = [line for line in lines if line.startswith("[ptxsim]")]
    said += [line for line in lines if "does not hold" in line or line.startswith("FAILED")]
    return (said or lines[-1:] or ["no output"])[0][:160]


def run_test(test: str, paths: dict[str, Path], environment: dict[str, str]) -> tuple[int, str]:
    program, *arguments = TESTS[test]
    try:
        done = subprocess.run(
            [paths[program], *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, "never ends"
    return done.returncode, last_words(done.stdout + done.stderr)


def try_fault(fault: Fault, paths: dict[str, Path]) -> Outcome:
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile("r") as log:
        command = [sys.executable, str(Path(__file__).resolve()), "--apply", fault.name]
        status, said = run_test(
            fault.test,
            paths,
            {"PTXSIM_FILTER": shlex.join(command), "FAULT_LOG": log.name, **fault.environment},
        )
        places = sum(int(line) for line in log.read().split())
    seconds = time.monotonic() - begin
    if places == 0:
        return Outcome(f"{fault.name}: matches nowhere, FAILED", False, seconds)
    if status == 0:
        return Outcome(f"{fault.name}: in {places} places, SURVIVES {fault.test}", False, seconds)
    text = f"{fault.name}: in {places} places, caught by {fault.test}: {said}"
    return Outcome(text, True, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build", type=Path, nargs="?")
    parser.add_argument("--apply", metavar="NAME")
    parser.add_argument("--only", default="", help="faults whose name holds this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    if arguments.apply:
        apply(arguments.apply)
        return 0

    faults = [fault for fault in FAULTS if arguments.only in fault.name]
    paths = programs(arguments.build)
    # Every way in which a test is run below must pass without a fault.
    ways = {(fault.test, tuple(sorted(fault.environment.items()))) for fault in faults}
    bad = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        sound = pool.map(lambda way: (way, run_test(way[0], paths, dict(way[1]))), sorted(ways))
        for (test, environment), (status, said) in sound:
            if status != 0:
                bad += 1
                print(f"{test} {dict(environment)}: FAILED without a fault: {said}", flush=True)
        outcomes = pool.map(lambda fault: try_fault(fault, paths), faults)
        for outcome in outcomes:
            bad += not outcome.caught
            print(f"{outcome.text} ({outcome.seconds:.1f} s)", flush=True)
    print(f"{len(faults)} faults, {bad} not caught")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
