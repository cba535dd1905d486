# SPDX-License-Identifier: Apache-2.0
"""What ``--patterns`` means: patterns by name and sizes, or head configs by file name."""

from __future__ import annotations

from dataclasses import dataclass

import minference
from minference.demo.errors import DemoError

PATTERNS: dict[str, type[minference.Pattern]] = {
    "dense": minference.Dense,
    "a_shape": minference.AShape,
    "tri_shape": minference.TriShape,
    "vertical_slash": minference.VerticalSlash,
    "block_sparse": minference.BlockSparse,
}

# One pattern for every head of the model, or one per layer and query head.
Patterns = minference.Pattern | minference.HeadConfig


@dataclass(frozen=True)
class Candidate:
    """Patterns to compare with dense attention, and the name they go by."""

    name: str
    patterns: Patterns

    def of_layer(self, layer_idx: int) -> minference.Pattern | tuple[minference.Pattern, ...]:
        """Return what the ops take for one layer: a pattern for all its heads, or one for each."""
        if isinstance(self.patterns, minference.HeadConfig):
            return self.patterns[layer_idx]
        return self.patterns

    def of_head(self, layer_idx: int, head_idx: int) -> minference.Pattern:
        """Return the pattern of one query head."""
        patterns = self.of_layer(layer_idx)
        return patterns[head_idx] if isinstance(patterns, tuple) else patterns


def parse_candidates(text: str) -> list[Candidate]:
    """Read a comma-separated list, such as ``vertical_slash:500:700,a_shape:128:1024,heads.json``.

    Raises:
        ValueError: An entry is neither a pattern nor the name of a JSON file.
        DemoError: A head config is missing or damaged.
    """
    return [_parse_candidate(entry.strip()) for entry in text.split(",")]


def _parse_candidate(entry: str) -> Candidate:
    if entry.endswith(".json"):
        try:
            return Candidate(entry, minference.load_config(entry))
        except OSError as error:
            msg = f"cannot read {entry} ({error.strerror}): give a readable head config"
            raise DemoError(msg) from error
        except ValueError as error:
            msg = f"{error}; give a head config in MInference's JSON format"
            raise DemoError(msg) from error
    kind, *sizes = entry.split(":")
    if kind not in PATTERNS:
        known = ", ".join(_usage(name) for name in PATTERNS)
        msg = f"expected {known} or FILE.json, got {entry!r}"
        raise ValueError(msg)
    expected = len(PATTERNS[kind].size_names())
    if len(sizes) != expected or not all(size.isdecimal() for size in sizes):
        msg = f"expected {_usage(kind)}, got {entry!r}"
        raise ValueError(msg)
    # The baseline is dense, too: the name says whose dense attention this is.
    name = "dense (minference)" if kind == "dense" else entry
    return Candidate(name, PATTERNS[kind](*map(int, sizes)))


def _usage(kind: str) -> str:
    """Spell a pattern with its sizes, for example ``a_shape:SINK:WINDOW``."""
    names = [name.upper() for name in PATTERNS[kind].size_names()]
    return ":".join([kind, *names])
