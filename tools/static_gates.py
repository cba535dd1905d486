# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of each CUDA kernel: reads machine code and checks expectations.

    python -m tools.static_gates LIBRARY            print the table; fail where a gate does
    python -m tools.static_gates --check LIBRARY    ... or where static.md holds another table
    python -m tools.static_gates --write LIBRARY    write static.md

LIBRARY is libminference.so, or object files. Gates, per kernel and architecture: no stack frame, no
local memory (a spill is both), no wgmma with a wait of its own; the instructions that the kernel is
built on; the blocks per multiprocessor and the registers of setmaxnreg that its comment states; and
an entry in static_kernels.py for every kernel. --check shows a change of registers or instructions
in the change that caused it. Needs cuobjdump and c++filt.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.static_code import (
    RESERVED_SHARED,
    Code,
    base_of,
    blocks_per_sm,
    demangled,
    launch_shapes,
    read_code,
    short,
    traits_of,
)
from tools.static_kernels import KERNELS, Kernel

TABLES = Path(__file__).parent.parent / "docs" / "machine_code"
TABLE = TABLES / "static.md"

# Column -> what it counts. LDGSTS: kernels should copy 16 bytes past L1; other forms are not
# counted.
COUNTED = {
    "HMMA": r"HMMA\.",
    "HGMMA": r"HGMMA\.",
    "WG WAIT": r"WARPGROUP\.DEPBAR",
    "UTMALDG": r"UTMALDG\.",
    "UTMASTG": r"UTMASTG\.",
    "UBLKCP": r"UBLKCP",
    "LDSM": r"LDSM\.",
    "LDGSTS 16": r"LDGSTS\.E\.BYPASS(\.\w+)*\.128$",
    "LD": r"LDG?\.E",  # Also through pointers whose address space the compiler does not know.
    "LD 16": r"LDG?\.E(\.\w+)*\.128",
    "ST": r"STG?\.E",
    "ST 16": r"STG?\.E(\.\w+)*\.128",
    "RED ATOM": r"(RED|ATOM|ATOMG|ATOMS)\.",
    "BAR": r"BAR\.",
    "SHFL": r"SHFL\.",
    "VOTE": r"(VOTE|VOTEU)\.",
    "EX2": r"MUFU\.EX2",
}
FORBIDDEN = {
    "local memory": r"(LDL|STL)(\.|$)",
    "cp.async that is not 16 bytes past L1": r"LDGSTS\.(?!E\.BYPASS(\.\w+)*\.128$)",
}

# ---- Table and gates -----------------------------------------------------------------------------


@dataclass
class Row:
    """A kernel instance, on the architectures for which the compiler's results are equal."""

    name: str
    archs: list[str]
    code: Code
    threads: int
    shared: int
    blocks: list[int]

    @property
    def kernel(self) -> Kernel | None:
        return KERNELS.get(base_of(self.name))

    def counts(self) -> list[int]:
        return [self.code.count(pattern) for pattern in COUNTED.values()]

    def problems(self) -> list[str]:
        kernel = self.kernel
        where = f"{short(self.name)} on {', '.join(self.archs)}"
        if kernel is None:
            return [f"{where}: no entry in tools/static_kernels.py"]
        found = []
        if self.code.stack or self.code.local:
            found.append(f"stack frame of {self.code.stack + self.code.local} bytes")
        if self.code.static_shared > RESERVED_SHARED:  # sm_90 reports these bytes for every kernel.
            found.append(f"{self.code.static_shared} bytes of static shared memory")
        for what, pattern in FORBIDDEN.items():
            if count := self.code.count(pattern):
                found.append(f"{count} times {what}")
        # If the compiler cannot follow a pipeline of wgmma, it waits after every instruction.
        products, waits = (self.code.count(COUNTED[column]) for column in ("HGMMA", "WG WAIT"))
        if 4 * waits > products:
            found.append(f"{waits} waits for {products} wgmma: serialised")
        if tuple(self.code.split) != kernel.split:
            found.append(f"setmaxnreg {self.code.split}, {list(kernel.split)} is stated")
        if self.code.beside < kernel.beside:
            found.append(f"{self.code.beside} exponentials beside a product, not {kernel.beside}")
        for column in kernel.needs:
            if self.code.count(COUNTED[column]) == 0:
                found.append(f"no {column}")
        for arch, blocks in zip(self.archs, self.blocks, strict=True):
            stated = kernel.stated_blocks(traits_of(self.name), arch)
            if blocks < stated:
                found.append(f"{blocks} blocks per multiprocessor of {arch}, {stated} are stated")
        return [f"{where}: {problem}" for problem in found]

    def cells(self) -> list[str]:
        code = self.code
        return [
            f"`{short(self.name)}`",
            " ".join(arch.removeprefix("sm_") for arch in self.archs),
            str(self.threads),
            " ".join(map(str, self.blocks)),
            " ".join(map(str, [code.registers, *code.split])),
            str(self.shared),
            str(code.stack + code.local),
            str(sum(code.opcodes.values())),
            *(str(count or "") for count in self.counts()),
        ]


HEADER = ["kernel", "sm", "threads", "blocks", "registers", "shared", "stack", "instructions"]


def make_rows(codes: dict[tuple[str, str], Code]) -> list[Row]:
    mangled = sorted({name for name, _ in codes})
    names = dict(zip(mangled, demangled(mangled), strict=True))
    shapes = launch_shapes(list(dict.fromkeys(names.values())))
    rows: list[Row] = []

    # Sort instances by number: dims 64, 96, 128, not 128, 64, 96.
    def order(item: tuple[tuple[str, str], Code]) -> tuple[object, ...]:
        name = names[item[0][0]]
        numbers = tuple(int(n) for n in re.findall(r"\d+", traits_of(name)))
        return base_of(name), re.sub(r"\d+", "", name), numbers, item[0][1]

    for (name, arch), code in sorted(codes.items(), key=order):
        threads, shared = shapes.get(names[name], (32, 0))
        blocks = blocks_per_sm(arch, registers=code.registers, threads=threads, shared_bytes=shared)
        row = Row(names[name], [arch], code, threads, shared, [blocks])
        last = rows[-1] if rows else None
        same = (
            last is not None
            and last.name == row.name
            and (last.cells()[4:] == row.cells()[4:] or arch in last.archs)
        )
        if not same:
            rows.append(row)
        elif arch not in last.archs:
            last.archs.append(arch)
            last.blocks.append(blocks)
    return rows


def markdown(rows: Sequence[Row]) -> str:
    lines = [
        "# What the compiler made of each CUDA kernel",
        "",
        "Written by `make static` from the machine code of libminference; what is demanded:",
        "`tools/static_gates.py`. blocks: per multiprocessor, by architecture of the row. shared:",
        "bytes of dynamic shared memory of a launch. From HMMA on: instructions in the code.",
        "registers: behind those of the launch, what setmaxnreg makes of them.",
        "",
        f"{nvcc_version()}.",
        "",
        "| " + " | ".join([*HEADER, *COUNTED]) + " |",
        "|" + "---|" * (len(HEADER) + len(COUNTED)),
    ]
    return "\n".join([*lines, *("| " + " | ".join(row.cells()) + " |" for row in rows)]) + "\n"


def nvcc_version() -> str:
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    try:
        done = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "Compiler unknown"
    return "nvcc " + re.search(r"V([\d.]+)", done.stdout)[1]


def compare_tables(committed_table: Path, table: str) -> list[str]:
    """Lines in which the committed table differs; none if another nvcc made it."""
    committed = committed_table.read_text().splitlines() if committed_table.exists() else []
    if f"{nvcc_version()}." not in committed:
        print(f"{committed_table.name} was made by another compiler: not compared")
        return []
    lines = table.splitlines()
    changed = [f"- {line}" for line in committed if line not in lines]
    return changed + [f"+ {line}" for line in lines if line not in committed]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="the table must be that of static.md")
    mode.add_argument("--write", action="store_true", help="write static.md")
    parser.add_argument("files", nargs="+", type=Path, help="libminference.so, or object files")
    args = parser.parse_args()

    rows = make_rows(read_code(args.files))
    if not rows:
        sys.exit(f"no CUDA machine code in {', '.join(map(str, args.files))}")
    table = markdown(rows)
    problems = [problem for row in rows for problem in row.problems()]
    absent = sorted(set(KERNELS) - {base_of(row.name) for row in rows})
    problems += [f"{name}: in tools/static_kernels.py, but in no file" for name in absent]
    if args.write:
        TABLE.write_text(table)
    if args.check and (changed := compare_tables(TABLE, table)):
        print("\n".join(changed))
        advice = "`make static`, commit docs/machine_code/static.md"
        problems.append(f"the machine code has changed: {advice}")
    if not args.write and not args.check:
        print(table, end="")
    print(f"{len(rows)} rows, {len({row.name for row in rows})} kernels, {len(problems)} problems")
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
