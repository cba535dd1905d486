# SPDX-License-Identifier: Apache-2.0
"""What attention on one more tile of 128 rows x 128 keys takes, counted on the PTX interpreter.

    python -m tools.static_counts PROGRAM            print the table
    python -m tools.static_counts --check PROGRAM    ... and fail where counts.md holds another
    python -m tools.static_counts --write PROGRAM    write counts.md

PROGRAM is count_attention of tests/ptx/kernels. Every row is the difference of two calls that
differ by a few tiles. The counts are those of nvcc's PTX, exact and the same in every run;
static.md shows what ptxas makes of it. Both are in docs/machine_code. Needs nvcc, no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.static_gates import TABLES, compare_tables, nvcc_version

TABLE = TABLES / "counts.md"
BACKENDS = "sm80", "sm90"
HEAD_DIMS = (64, 64), (96, 96), (128, 128), (192, 192), (192, 128), (256, 256)
PATTERNS = "dense", "runs", "columns", "blocks"
# Far from a kernel's beginning and end, and multiples of what any pipeline unrolls by.
FEWER, MORE = 16, 32

# Class of instructions -> how their PTX begins. The first match counts.
CLASSES = {
    "matrix": r"mma\.|wgmma\.mma_async",
    "ldmatrix": r"ldmatrix|stmatrix",
    "shared": r"(ld|st|atom|red)\.(volatile\.)?shared",
    "global": r"(ld|st|atom|red|ldu|prefetch)\b",
    "copy": r"cp\.",
    "wait": r"mbarrier|bar\.|barrier|fence|membar|wgmma\.(fence|commit|wait)|nanosleep",
    "ex2": r"ex2\.",
    "convert": r"cvt\.",
    "fp32": r"(add|sub|mul|fma|max|min|neg|abs|rcp|lg2|div)\.(\w+\.)*(f32|bf16x2|f16x2)",
    "warp": r"shfl|vote|match|redux|elect|activemask",
    "control": r"bra|brx|ret|exit|setp|call|trap",
    "move": r"mov|selp|cvta",
    "integer": r"\w",
}
COLUMNS = ["backend", "head_dim", "pattern", "warp instructions", *CLASSES]
MEASURES = {
    "shared wavefronts": "shared_wavefronts",
    "without conflicts": "shared_wavefronts_ideal",
    "TMA bytes": "tma_load_bytes",
    "cp.async bytes": "cp_async_bytes",
    "matrix MFLOP": "flops",
}


def class_of(opcode: str) -> str:
    return next(name for name, pattern in CLASSES.items() if re.match(pattern, opcode))


def count(program: Path, backend: str, pattern: str, dims: tuple[int, int], tiles: int) -> Counter:
    """Run attention on some tiles; return what its kernel did, by class and measure."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [backend, pattern, *map(str, dims), str(tiles)]
        environment = {
            **os.environ, "PTXSIM_REPORT": folder, "PTXSIM_COUNT": "1", "PTXSIM_CHECK": "0"
        }  # fmt: skip
        subprocess.run([program, *arguments], env=environment, check=True)
        (path,) = Path(folder).glob("*.json")
        kernels = json.loads(path.read_text())["kernels"]
    (kernel,) = [k for k in kernels if re.search(r"\d+attention_kernel", k["name"])]
    counts: Counter = Counter()
    for _, opcode, ran in kernel["instructions"]:
        counts["warp instructions"] += ran
        counts[class_of(opcode)] += ran
    kernel["flops"] = kernel["mma_flops"] + kernel["wgmma_flops"]
    for column, key in MEASURES.items():
        counts[column] += kernel[key]
    return counts


def row(program: Path, backend: str, pattern: str, dims: tuple[int, int]) -> list[str]:
    few, many = (count(program, backend, pattern, dims, tiles) for tiles in (FEWER, MORE))
    tile = {column: (many[column] - few[column]) / (MORE - FEWER) for column in many}
    tile["matrix MFLOP"] /= 1e6
    dim = f"{dims[0]}" if dims[0] == dims[1] else f"{dims[0]}/{dims[1]}"
    cells = [f"{tile[column]:.6g}" if tile[column] else "" for column in [*COLUMNS[3:], *MEASURES]]
    return [backend, dim, pattern, *cells]


def markdown(rows: list[list[str]]) -> str:
    header = [*COLUMNS, *MEASURES]
    lines = [
        "# What attention on one more tile takes",
        "",
        "Written by `make static`, by counting on the PTX interpreter (`tests/ptx`); how:",
        "`tools/static_counts.py`. 128 rows x 128 keys, bf16, one head; warp instructions of",
        "PTX, by class; shared memory in wavefronts of 128 bytes, and what they would be without",
        "bank conflicts (what TMA and wgmma do there is not counted). dense, runs: neighbouring",
        "keys; columns: single keys; blocks: of 64 keys.",
        "",
        f"{nvcc_version()}.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
    ]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="the table must be that of counts.md")
    mode.add_argument("--write", action="store_true", help="write counts.md")
    parser.add_argument("program", type=Path, help="count_attention")
    args = parser.parse_args()

    cases = [(b, p, d) for b in BACKENDS for d in HEAD_DIMS for p in PATTERNS]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        table = markdown(list(pool.map(lambda case: row(args.program.resolve(), *case), cases)))
    if args.write:
        TABLE.write_text(table)
    if not args.write and not args.check:
        print(table, end="")
    if args.check and (changed := compare_tables(TABLE, table)):
        advice = "the counts have changed: `make static`, commit docs/machine_code/counts.md"
        sys.exit("\n".join([*changed, advice]))


if __name__ == "__main__":
    main()
