"""Compares the instructions of csrc/cuda/arch with CUTLASS's, as nvcc emits them.

    compare_instructions.py --nvcc NVCC --source MINFERENCE --cutlass INCLUDE --output FOLDER

primitives.cu and wgmma.cu have a kernel around each function and one around CUTLASS's. A difference
without a reason in differences.py is a failure. So is a function, or an asm statement in one, that
no kernel reaches and differences.py does not name.

SPDX-License-Identifier: Apache-2.0
"""

import argparse
import itertools
import re
import subprocess
import sys
from pathlib import Path

from cpp_functions import Function, functions_of
from differences import DIFFERENCES, NOT_COMPARED, Difference
from ptx_text import Kernel, read_kernels

HERE = Path(__file__).resolve().parent
OURS, CUTLASS = "ours_", "cutlass_"


def compile_kernels(options: argparse.Namespace) -> dict[str, Kernel]:
    kernels: dict[str, Kernel] = {}
    for name in ("primitives", "wgmma"):
        output = options.output / f"{name}.ptx"
        flags = ["-ptx", "-lineinfo", "-arch=compute_90a", "-std=c++20", "-DNDEBUG"]
        flags += ["--expt-relaxed-constexpr", f"-I{options.source / 'csrc'}"]
        flags += [f"-I{options.source / 'include'}", f"-isystem={options.cutlass}"]
        source = str(HERE / f"{name}.cu")
        subprocess.run([options.nvcc, *flags, source, "-o", str(output)], check=True)
        kernels |= read_kernels(output.read_text())
    return kernels


def rewrite(pair: str, instruction: str, used: set[Difference]) -> str:
    """Rewrite our instruction into CUTLASS's form, by the table."""
    for difference in DIFFERENCES:
        if re.fullmatch(difference.pairs, pair):
            changed = re.sub(difference.ours, difference.cutlass, instruction)
            if changed != instruction:
                used.add(difference)
            instruction = changed
    return instruction


def compare_pairs(kernels: dict[str, Kernel]) -> list[str]:
    faults = []
    used: set[Difference] = set()
    pairs = [name.removeprefix(OURS) for name in kernels if name.startswith(OURS)]
    for pair in pairs:
        ours = [rewrite(pair, text, used) for text in kernels[OURS + pair].instructions]
        if CUTLASS + pair not in kernels:
            faults.append(f"{pair}: no kernel with CUTLASS's function")
            continue
        theirs = kernels[CUTLASS + pair].instructions
        if not theirs:
            faults.append(f"{pair}: CUTLASS's kernel has no instruction")
        if ours != theirs:
            both = itertools.zip_longest(ours, theirs, fillvalue="nothing")
            first = next((a, b) for a, b in both if a != b)
            faults.append(f"{pair}:\n    ours     {first[0]}\n    CUTLASS  {first[1]}")
    faults += [
        f"differences.py has a line that changes nothing: {difference.reason}"
        for difference in DIFFERENCES
        if difference not in used
    ]
    forms = len([pair for pair in pairs if pair.startswith("wgmma_")])
    print(f"{len(pairs) - forms} primitives and {forms} forms of wgmma compared")
    for difference in DIFFERENCES:
        if difference in used:
            print(f"  {difference.pairs}: {difference.reason}")
    return faults


def check_coverage(functions: list[Function], kernels: dict[str, Kernel]) -> list[str]:
    reached: set[tuple[str, int]] = set()
    for name, kernel in kernels.items():
        if name.startswith(OURS):
            reached |= {(str(Path(file).resolve()), line) for file, line in kernel.lines}
    faults = []
    excused = set()
    compared = 0
    for function in functions:
        file = str(Path(function.file).resolve())
        lines = {line for reached_file, line in reached if reached_file == file}
        if not lines & set(range(function.first, function.last + 1)):
            if function.name in NOT_COMPARED:
                excused.add(function.name)
            else:
                faults.append(f"{function} has no comparison, nor a line in differences.py")
            continue
        compared += 1
        faults += [
            f"{function}: nothing compares the assembly of line {statement.start}"
            for statement in function.assembly
            if not lines & set(statement)
        ]
    faults += [
        f"differences.py excuses {name}, which is compared, or does not exist"
        for name in NOT_COMPARED
        if name not in excused
    ]
    print(f"{compared} of {len(functions)} functions compared, {len(excused)} excused")
    return faults


def check_wgmma_forms(operands: str, kernels: dict[str, Kernel]) -> list[str]:
    """Check that every N of wgmma.h is there with both types and majors."""
    missing = []
    for place in ("shared", "registers"):
        sizes = re.findall(rf"^ *MINF_WGMMA_{place.upper()}\((\d+),", operands, re.M)
        names = [
            f"wgmma_{place}_{n}_{element}_{major}"
            for n in sizes
            for element in ("BFloat16", "Float16")
            for major in ("kK", "kMn")
        ]
        missing += [f"{name} is not compared" for name in names if OURS + name not in kernels]
        if not names:
            missing.append(f"no forms of wgmma with A in {place} found in wgmma.h")
    return missing


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--cutlass", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    kernels = compile_kernels(options)
    headers = sorted((options.source / "csrc/cuda/arch").glob("*.h"))
    functions = [function for header in headers for function in functions_of(header)]
    operands = (options.source / "csrc/cuda/arch/wgmma.h").read_text()
    faults = compare_pairs(kernels)
    faults += check_coverage(functions, kernels)
    faults += check_wgmma_forms(operands, kernels)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
