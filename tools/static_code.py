# SPDX-License-Identifier: Apache-2.0
"""Reads compiled CUDA kernels: registers, opcodes, and the shapes of their launches."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.static_kernels import KERNELS

ROOT = Path(__file__).parent.parent

# ---- Architectures: CUDA C++ Programming Guide, "Compute Capabilities" ---------------------------


@dataclass(frozen=True)
class Multiprocessor:
    threads: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int  # Limit for one block.
    registers: int = 65536


KIB = 1024
MULTIPROCESSORS = {
    "sm_80": Multiprocessor(2048, 32, 164 * KIB, 163 * KIB),
    "sm_86": Multiprocessor(1536, 16, 100 * KIB, 99 * KIB),
    "sm_89": Multiprocessor(1536, 24, 100 * KIB, 99 * KIB),
    "sm_90": Multiprocessor(2048, 32, 228 * KIB, 227 * KIB),
    "sm_90a": Multiprocessor(2048, 32, 228 * KIB, 227 * KIB),
}
RESERVED_SHARED = KIB  # In each block.
REGISTER_UNIT = 256  # Per warp.
SHARED_UNIT = 128


def _rounded_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def blocks_per_sm(arch: str, *, registers: int, threads: int, shared_bytes: int) -> int:
    sm = MULTIPROCESSORS[arch]
    if shared_bytes > sm.block_shared_bytes:
        return 0
    warps = -(-threads // 32)
    per_warp = _rounded_up(registers * 32, REGISTER_UNIT)
    return min(
        sm.blocks,
        sm.threads // (32 * warps),
        # A quarter of the registers for each quarter of the multiprocessor.
        (sm.registers // 4 // per_warp) * 4 // warps,
        sm.shared_bytes // _rounded_up(shared_bytes + RESERVED_SHARED, SHARED_UNIT),
    )


# ---- Reading machine code ------------------------------------------------------------------------

INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)")


@dataclass
class Code:
    """One kernel's machine code for one architecture."""

    registers: int = 0
    stack: int = 0
    local: int = 0
    static_shared: int = 0
    opcodes: Counter[str] = field(default_factory=Counter)
    split: list[int] = field(default_factory=list)  # Registers after each setmaxnreg.
    # Exponentials between a wait for all wgmma groups but the last, and the wait for the last.
    beside: int = 0
    _waits: bool = False

    def see(self, opcode: str, instruction: str) -> None:
        self.opcodes[opcode] += 1
        if opcode.startswith("USETMAXREG"):
            self.split.append(int(instruction.split()[-1], 16))
        elif opcode.startswith("WARPGROUP.DEPBAR"):
            self._waits = instruction.endswith("0x1 ")
        elif opcode.startswith("MUFU.EX2") and self._waits:
            self.beside += 1

    def count(self, pattern: str) -> int:
        expression = re.compile(pattern)
        return sum(n for opcode, n in self.opcodes.items() if expression.match(opcode))


def find_tool(name: str) -> str:
    """Find cuobjdump, which is part of the CUDA toolkit and a separate package on PyPI."""
    site = Path(sysconfig.get_path("purelib"))
    packaged = sorted(site.glob(f"nvidia/*/bin/{name}"))
    for candidate in (shutil.which(name), *packaged, Path("/usr/local/cuda/bin", name)):
        if candidate is not None and Path(candidate).exists():
            return str(candidate)
    sys.exit(f"{name} not found: pip install nvidia-cuda-{name}, or put the CUDA toolkit on PATH")


def _lines(*command: str) -> Iterator[str]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "does not contain device code" in line:
                sys.exit(f"{command[-1]}: no CUDA machine code in it")
            yield line
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")


def read_code(files: Sequence[Path]) -> dict[tuple[str, str], Code]:
    """(mangled name, architecture) -> code. A kernel in two files has the same code in both."""
    cuobjdump = find_tool("cuobjdump")
    codes: dict[tuple[str, str], Code] = {}
    for file in map(str, files):
        key = arch = None
        for line in _lines(cuobjdump, "-res-usage", file):
            if match := re.match(r"arch = (\w+)", line):
                arch = match[1]
            elif match := re.match(r" Function (\S+):", line):
                key = (match[1], arch)
            elif key is not None and "REG:" in line:
                usage = {k: int(v) for k, v in re.findall(r"(\w+):(\d+)", line)}
                code = Code(usage["REG"], usage["STACK"], usage["LOCAL"], usage["SHARED"])
                codes[key] = code
        code = None
        for line in _lines(cuobjdump, "-sass", file):
            if match := INSTRUCTION.match(line):
                code.see(match[1], line.split(";")[0])
            elif match := re.match(r"\s+code for (\w+)", line):
                arch = match[1]
            elif match := re.match(r"\s+Function : (\S+)", line):
                code = codes[match[1], arch]
                code.opcodes.clear()
                code.split.clear()
                code.beside = 0
    return codes


def demangled(names: Sequence[str]) -> list[str]:
    """Names without our namespaces, result and parameters: ``kernel<Traits<BFloat16, 128>>``."""
    done = subprocess.run(
        ["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True
    )
    return [_without_signature(line) for line in done.stdout.splitlines()]


def _without_signature(name: str) -> str:
    name = name.replace("(anonymous namespace)::", "").removeprefix("void ")
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            name = name[:i]
            break
    return name.replace("> >", ">>").replace("> >", ">>")


def short(name: str) -> str:
    return re.sub(r"\b(minference|cuda|device|arch|sm80|tma)::|(?<=[<,:])sm90::", "", name)


# ---- Shapes: threads and shared memory of a launch, from the kernels' headers -----------


def traits_of(name: str) -> str:
    """The template argument of ``namespaces::kernel<argument>``."""
    return name[name.index("<") + 1 : -1] if "<" in name else "void"


def base_of(name: str) -> str:
    *spaces, base = name.split("<")[0].split("::")
    qualified = f"{spaces[-1]}::{base}" if spaces else base
    return qualified if qualified in KERNELS else base


def launch_shapes(names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Map each kernel instance to (threads, dynamic shared bytes).

    The sizes are those of C++ types: a source that includes the kernel's header and lists them in a
    table is compiled for the host (as in tests/simt), and the table is read from the assembly.
    """
    shapes = {}
    by_source: dict[str, list[str]] = {}
    for name in names:
        if base_of(name) in KERNELS:
            by_source.setdefault(KERNELS[base_of(name)].source, []).append(name)
    for source, instances in by_source.items():
        values = _constants(source, [e for name in instances for e in _expressions(name)])
        pairs = zip(values[::2], values[1::2], strict=True)
        shapes |= dict(zip(instances, pairs, strict=True))
    return shapes


def _expressions(name: str) -> tuple[str, str]:
    kernel, traits = KERNELS[base_of(name)], traits_of(name)
    threads, shared = kernel.threads, kernel.shared
    return tuple(f"({e.replace('Traits', traits)})" for e in (threads, shared))


def _constants(source: str, expressions: Sequence[str]) -> list[int]:
    lines = ",\n".join(f"static_cast<unsigned long>({e})" for e in expressions)
    text = f"""#include "{source}"
namespace minference::cuda {{}}
namespace minference::sm80 {{
using namespace cuda;
extern const unsigned long kSizes[] = {{
{lines}
}};
}}
"""
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(text)
        command = ["g++", "-std=c++20", "-DMINF_SIMT", "-O0", "-w", "-S", "-o", "-", "-x", "c++"]
        includes = [f"-I{ROOT / part}" for part in ("tests/simt/include", "csrc", "include")]
        done = subprocess.run([*command, *includes, str(probe)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{source} does not compile for the host:\n{done.stderr[:2000]}")
    table = done.stdout[re.search(r"^_ZN.*kSizesE:", done.stdout, re.MULTILINE).end() :]
    return [int(value) for value in re.findall(r"\.quad\s+(\d+)", table)[: len(expressions)]]
