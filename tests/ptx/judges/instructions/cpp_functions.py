"""Functions of a C++ header and the inline assembly in them, by their lines.

SPDX-License-Identifier: Apache-2.0
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

TYPE = re.compile(r"\b(struct|class|enum|union)\b(?![^<]*>)")
# Matches the places where a function issues instructions.
ASSEMBLY = re.compile(r"\basm\b|\bMINF_WGMMA_\w+_EACH\b")


@dataclass
class Function:
    """Lines from `first` to `last`; `assembly` holds the lines of each asm statement."""

    name: str
    file: str
    first: int
    last: int
    assembly: list[range] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name} ({Path(self.file).name}:{self.first})"


def without_comments(text: str) -> str:
    """Replace comments, strings and preprocessor lines with spaces; keep the lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|^[ \t]*#(?:\\\n|[^\n])*'

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return re.sub(pattern, blank, text, flags=re.S | re.M)


def close_of(code: str, start: int, brackets: str) -> int:
    """Return the index after the bracket that closes the one at `start`."""
    depth = 0
    for at in range(start, len(code)):
        depth += (code[at] == brackets[0]) - (code[at] == brackets[1])
        if depth == 0:
            return at + 1
    raise ValueError(f"no {brackets[1]} for the {brackets[0]} at {start}")


def functions_of(path: Path) -> list[Function]:
    """Return the functions at namespace scope that have a body."""
    code = without_comments(path.read_text())
    found: list[Function] = []

    def line(at: int) -> int:
        return code.count("\n", 0, at) + 1

    def scan(start: int, end: int) -> None:
        head = start
        at = start
        while at < end:
            if code[at] == ";":
                head = at + 1
            elif code[at] == "{":
                close = close_of(code, at, "{}")
                text = code[head:at]
                if re.search(r"\bnamespace\b[^()]*$", text):
                    scan(at + 1, close - 1)
                elif not TYPE.search(text) and (match := re.search(r"(\w+)\s*\(", text)):
                    found.append(make(match[1], head, at, close))
                at, head = close - 1, close
            at += 1

    def make(name: str, head: int, open_brace: int, close: int) -> Function:
        first = line(head + len(code[head:open_brace]) - len(code[head:open_brace].lstrip()))
        result = Function(name, str(path), first, line(close - 1))
        for match in ASSEMBLY.finditer(code, open_brace, close):
            last = match.end()
            if match[0] == "asm":
                last = close_of(code, code.index("(", match.end()), "()")
            result.assembly.append(range(line(match.start()), line(last) + 1))
        return result

    scan(0, len(code))
    return found
