"""PTX of straight-line kernels, with each instruction's operands written as expressions.

A register is replaced by the expression that it holds. Two compilations of the same work then read
the same, whatever their registers and the order of their arithmetic.

SPDX-License-Identifier: Apache-2.0
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

# Computes operands and control; everything else is compared.
PLUMBING = re.compile(
    r"(abs|add|and|bfe|bra|createpolicy|cvt|cvta|fma|ld|mad|mov|mul|neg|not|or|prmt|rcp|ret|selp|"
    r"setp|shl|shr|sub|xor)(\.|$)"
)
# Instructions without a result.
NO_RESULT = re.compile(
    r"st|stmatrix|cp|fence|setmaxnreg|bar|barrier|prefetch|trap|nanosleep|wgmma\.(fence|commit|wait)|"
    r"mbarrier\.(init|inval|expect_tx)"
)
NAME = re.compile(r"[%$A-Za-z_][\w$]*")
BRACE = re.compile(r"[{}]")
NUMBER = re.compile(r"(?<![\w.%$])(-?\d+|0x[0-9a-fA-F]+)(?![\w.])")


@dataclass
class Kernel:
    """A kernel's compared instructions, and the source lines (file, line) that it came from."""

    instructions: list[str] = field(default_factory=list)
    lines: set[tuple[str, int]] = field(default_factory=set)


def split_operands(text: str) -> list[str]:
    """Split at commas outside of brackets and braces."""
    operands, depth, start = [], 0, 0
    for at, character in enumerate(text):
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            operands.append(text[start:at].strip())
            start = at + 1
    last = text[start:].strip()
    return [*operands, last] if last else operands


def plain_number(match: re.Match[str]) -> str:
    """Write a number in decimal; 32-bit numbers as unsigned."""
    value = int(match[0], 0)
    return str(value % 2**32 if -(2**31) <= value < 0 else value)


class Reader:
    """Follows one kernel's statements."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.values: dict[str, str] = {}
        self.scopes: list[dict[str, str]] = [{}]  # Registers that inline assembly declares.
        self.declared = 0

    def statement(self, text: str) -> None:
        while (text := text.strip()) and (match := re.match(r"[{}]|[\w$]+:(?!:)", text)):
            if match[0] == "{":
                self.scopes.append({})
            elif match[0] == "}" and len(self.scopes) > 1:
                self.scopes.pop()
            text = text[match.end() :]
        if text.startswith(".reg"):
            self.declare(text)
        elif text and not text.startswith("."):
            self.instruction(" ".join(text.split()))

    def declare(self, text: str) -> None:
        for name in text.split(None, 2)[2].split(","):
            self.declared += 1
            self.scopes[-1][name.strip()] = f"local{self.declared}"

    def register(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name

    def value(self, operand: str) -> str:
        def of_name(match: re.Match[str]) -> str:
            name = re.sub(r"^\w+_(param_\d+)$", r"\1", match[0])
            return self.values.get(self.register(name), name)

        return NUMBER.sub(plain_number, NAME.sub(of_name, operand))

    def instruction(self, text: str) -> None:
        guard = ""
        if match := re.match(r"@(!?\S+)\s+", text):
            guard = f"@{self.value(match[1])} "
            text = text[match.end() :]
        opcode, _, rest = text.partition(" ")
        operands = split_operands(rest)
        accumulates = opcode.startswith("wgmma.mma_async")
        results: list[str] = []
        if operands and not NO_RESULT.match(opcode) and not opcode.startswith(("bra", "ret")):
            results = [name for name in re.split(r"[{},|\s]+", operands[0]) if name]
            operands = operands if accumulates else operands[1:]
        values = [self.value(operand) for operand in operands]
        if PLUMBING.match(opcode):
            self.compute(guard, opcode, results, values)
            return
        for index, name in enumerate(results):
            self.values[self.register(name)] = f"result{len(self.kernel.instructions)}.{index}"
        self.kernel.instructions.append(f"{guard}{opcode} {', '.join(values)}".strip())

    def compute(self, guard: str, opcode: str, results: list[str], values: list[str]) -> None:
        base = opcode.split(".")[0]
        if base in ("mov", "cvta") or opcode.startswith("ld.param"):
            expression = values[0] if values else ""
            if opcode.startswith("ld.param"):
                expression = expression.strip("[]")
        else:
            # For these the result does not depend on the type in the opcode.
            name = base if base in ("selp", "and", "or", "xor", "shl") else opcode
            expression = f"{name}({', '.join(values)})"
        for index, result in enumerate(results):
            key = self.register(result)
            value = expression if len(results) == 1 else f"{expression}.{index}"
            self.values[key] = f"({guard}{value} : {self.values.get(key, '')})" if guard else value


def bodies(text: str) -> Iterator[tuple[str, str]]:
    """Yield each kernel's name and the text between its braces."""
    for match in re.finditer(r"\.entry (\w+)\([^)]*\)[^{]*\{", text):
        depth = 1
        for brace in BRACE.finditer(text, match.end()):
            depth += 1 if brace[0] == "{" else -1
            if depth == 0:
                yield match[1], text[match.end() : brace.start()]
                break


def read_kernels(text: str) -> dict[str, Kernel]:
    files = dict(re.findall(r'^\s*\.file\s+(\d+) "([^"]*)"', text, re.M))
    kernels = {}
    for name, body in bodies(text):
        reader = Reader()
        code = []
        for line in body.splitlines():
            line = line.split("//")[0]
            if line.strip().startswith(".loc"):
                places = re.findall(r"(?:\.loc|inlined_at)\s+(\d+) (\d+)", line)
                reader.kernel.lines |= {(files[file], int(number)) for file, number in places}
            else:
                code.append(line)
        for statement in "\n".join(code).split(";"):
            reader.statement(statement)
        kernels[name] = reader.kernel
    return kernels
