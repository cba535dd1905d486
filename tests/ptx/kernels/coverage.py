# SPDX-License-Identifier: Apache-2.0
"""How much of each kernel's generated code the tests ran, from the reports of their processes.

    python coverage.py REPORT_FOLDER [--least 90] [--source FOLDER]

Prints a line per kernel. For kernels below the bound it lists what never ran, by source line, and
the exit status is 1. It counts PTX instructions; a kernel in several modules counts once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Kernel:
    """A kernel's instructions: line in the module's text, opcode, and how often it ran."""

    module: str
    lines: list[int]
    opcodes: list[str]
    ran: list[int]
    launches: int = 0

    @property
    def share(self) -> float:
        return sum(count > 0 for count in self.ran) / len(self.ran)


def read_reports(folder: Path) -> dict[tuple[str, tuple[str, ...]], Kernel]:
    """Return kernels by name and opcodes, summed over all processes."""
    kernels: dict[tuple[str, tuple[str, ...]], Kernel] = {}
    for path in sorted(folder.glob("*.json")):
        for report in json.loads(path.read_text())["kernels"]:
            lines, opcodes, ran = map(list, zip(*report["instructions"], strict=True))
            key = report["name"], tuple(opcodes)
            kernel = kernels.setdefault(
                key, Kernel(report["module"], lines, opcodes, [0] * len(ran))
            )
            kernel.ran = [a + b for a, b in zip(kernel.ran, ran, strict=True)]
            kernel.launches += report["launches"]
    return kernels


def demangled(names: list[str]) -> dict[str, str]:
    text = subprocess.run(
        ["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True
    ).stdout
    return dict(zip(names, text.splitlines(), strict=True))


class SourceLines:
    """Maps each line of a module's text to its source line, by the .loc directives."""

    FILE = re.compile(r'\.file\s+(\d+)\s+"([^"]*)"')
    LOC = re.compile(r"\.loc\s+(\d+)\s+(\d+)")

    def __init__(self, text: str, root: Path) -> None:
        files = {number: self._shorten(path, root) for number, path in self.FILE.findall(text)}
        self._by_line: list[tuple[str, int]] = [("", 0)]
        place = ("", 0)
        for line in text.splitlines():
            if found := self.LOC.search(line):
                place = (files.get(found[1], "?"), int(found[2]))
            self._by_line.append(place)

    @staticmethod
    def _shorten(path: str, root: Path) -> str:
        try:
            return str(Path(path).resolve().relative_to(root))
        except ValueError:
            return Path(path).name

    def of(self, line: int) -> tuple[str, int]:
        return self._by_line[line]


def missed_lines(kernel: Kernel, text: str, root: Path) -> list[str]:
    """List the source lines of instructions that never ran, most instructions first."""
    sources = SourceLines(text, root)
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for line, ran in zip(kernel.lines, kernel.ran, strict=True):
        if ran == 0:
            file, number = sources.of(line)
            counts[file][number] += 1
    result = []
    for file, by_line in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        # Join neighbouring lines into one range.
        numbers = sorted(by_line)
        ranges = [
            [number for _, number in group]
            for _, group in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
        ]
        text_of_ranges = ", ".join(
            f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in ranges
        )
        result.append(f"{file}: {text_of_ranges} ({sum(by_line.values())} instructions)")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--least", type=float, default=90, help="percent, of every kernel")
    parser.add_argument("--source", type=Path, default=Path.cwd(), help="root of source paths")
    parser.add_argument("--only", default="", help="regular expression of kernels' names")
    arguments = parser.parse_args()

    kernels = read_reports(arguments.folder)
    names = demangled([name for name, _ in kernels])
    chosen = {
        key: kernel for key, kernel in kernels.items() if re.search(arguments.only, names[key[0]])
    }
    if not chosen:
        print(f"no kernel has run, according to {arguments.folder}")
        return 1
    below = 0
    for (name, _), kernel in sorted(chosen.items(), key=lambda item: names[item[0][0]]):
        percent = 100 * kernel.share
        print(f"{percent:6.2f} %  {len(kernel.ran):6} instructions  {names[name]}")
        if percent < arguments.least:
            below += 1
            module = (arguments.folder / f"{kernel.module}.ptx").read_text()
            for line in missed_lines(kernel, module, arguments.source.resolve()):
                print(f"          never ran: {line}")
    ran = sum(count > 0 for kernel in chosen.values() for count in kernel.ran)
    total = sum(len(kernel.ran) for kernel in chosen.values())
    print(f"{len(chosen)} kernels, {ran} of {total} instructions ({100 * ran / total:.2f} %)")
    if below:
        print(f"FAILED: {below} kernels below {arguments.least:g} %")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
