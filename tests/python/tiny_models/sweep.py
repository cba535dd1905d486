# SPDX-License-Identifier: Apache-2.0
"""Every family of transformers, tiny and random: minference's dense attention against eager.

    PYTHONPATH=tests/python python -m tiny_models.sweep [families...] [--out docs/models.md]

Each family runs in a separate process, so that a crash or a hang gives a row and does not end the
sweep. Exits with 1 if a family is wrong, or fails other than by refusing.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
import transformers

from tiny_models.build import Entry, build, entries
from tiny_models.compare import Verdict, judge, one_line
from tiny_models.table import write_table

SECONDS = 90  # Per family; most take one.


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("families", nargs="*", help="model types or class names; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="families at a time, a core each")
    parser.add_argument("--out", type=Path, help="where to write the table, in markdown")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    args = parser.parse_args()

    wanted = [
        e for e in entries() if not args.families or {e.family, e.class_name} & {*args.families}
    ]
    known = {name for e in wanted for name in (e.family, e.class_name)}
    if unknown := [name for name in args.families if name not in known]:
        parser.error(f"no such family: {', '.join(unknown)}")

    verdicts = []
    for verdict in run_all(wanted, args.jobs):
        verdicts.append(verdict)
        show(verdict, len(verdicts), len(wanted))
    verdicts.sort(key=lambda v: (v.family, v.class_name))
    if args.json:
        args.json.write_text(json.dumps([v.as_dict() for v in verdicts], indent=1) + "\n")
    if args.out:
        write_table(verdicts, args.out)
    return int(any(v.result in ("WRONG", "error") for v in verdicts))


def show(verdict: Verdict, at: int, of: int) -> None:
    name = f"{verdict.family} {verdict.class_name}"
    line = f"[{at}/{of}] {verdict.result:15} {name:60} {verdict.seconds:5.1f} s  {verdict.reason}"
    print(line[:200], flush=True)


def run_all(wanted: list[Entry], jobs: int) -> Iterator[Verdict]:
    """Yield verdicts as they come."""
    quieten()
    build(Entry("llama", "LlamaForCausalLM"))  # Shared imports happen once, before the forks.
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(wanted)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            entry = waiting.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(entry, sender))
            process.start()
            sender.close()
            running[receiver] = (entry, process, time.monotonic())
        ready = wait(list(running), timeout=1.0)
        for receiver, (entry, process, begin) in list(running.items()):
            seconds = time.monotonic() - begin
            if receiver in ready:
                verdict = _received(receiver, entry, process, seconds)
            elif seconds > SECONDS:
                process.kill()
                verdict = _failed(entry, f"no result after {SECONDS} s", seconds)
            else:
                continue
            process.join()
            del running[receiver]
            yield verdict


def quieten() -> None:
    """Silence warnings of models; the table shows what goes wrong."""
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)


def _work(entry: Entry, sender: Connection) -> None:
    with Path(os.devnull).open("w") as sink:
        os.dup2(sink.fileno(), sys.stderr.fileno())
    try:
        sender.send(judge(entry))
    except Exception as error:
        sender.send(_failed(entry, one_line(error), 0.0))


def _received(
    receiver: Connection, entry: Entry, process: multiprocessing.Process, seconds: float
) -> Verdict:
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        return _failed(entry, f"the process died, exit code {process.exitcode}", seconds)


def _failed(entry: Entry, reason: str, seconds: float) -> Verdict:
    return Verdict(entry.family, entry.class_name, "error", reason, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
