# SPDX-License-Identifier: Apache-2.0
"""The demo from end to end: load, compare, print, write."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import minference
from minference.demo import report
from minference.demo.candidates import Candidate
from minference.demo.compare import PASSKEY_DEPTHS, Comparison
from minference.demo.errors import DemoError
from minference.demo.inputs import (
    DEFAULT_TEXT,
    LoadedModel,
    find_weights,
    first_tokens,
    load_model,
    read_text,
)
from minference.demo.maps import choose_heads, head_maps
from minference.demo.plot import TimeBar, draw_picture

MIN_TOKENS = 512  # Of the text: below, a passkey prompt has no room for filler.
OUTPUT_BYTES = 8 << 20  # Asked of the disk before minutes of work; the two files take about 1 MiB.
BUSY_LOAD = 0.7  # Runnable threads, averaged over the minute before the start.
PICTURED_CANDIDATES = 2  # More would make the picture taller than a screen.


@dataclass(frozen=True)
class Options:
    """What to run; the defaults of the command line are in cli.py.

    Attributes:
        candidates: Patterns to compare with dense attention, in turn.
        tokens: Length of the prompt; a shorter text is taken whole.
        repeats: Prefills to time, of each way to attend.
        threads: CPU threads.
        out: Folder for demo.json and demo.png.
        text: File to prefill; None selects the language reference that CPython carries.
        dtype: Of weights and activations. None selects bfloat16 where the processor multiplies it,
            as the model is served; elsewhere float32, for bfloat16 emulated is slower still.
    """

    candidates: Sequence[Candidate]
    tokens: int
    repeats: int
    threads: int
    out: Path
    text: Path | None = None
    dtype: torch.dtype | None = None


def run_demo(options: Options) -> None:
    """Run everything, print the comparison, and write demo.json and demo.png.

    Raises:
        DemoError: Something is missing, damaged or not writable.
    """
    start = time.perf_counter()
    load_average = os.getloadavg()[0]
    prepare_folder(options.out)
    text = read_text(options.text)
    weights = find_weights()
    torch.set_num_threads(options.threads)
    print(f"loading {weights.stem}", file=sys.stderr, flush=True)
    loaded = load_model(weights, dtype=options.dtype or native_dtype())
    check_candidates(options.candidates, loaded)

    ids = first_tokens(loaded.tokenizer, text, tokens=options.tokens, at_least=MIN_TOKENS)
    source = str(options.text or DEFAULT_TEXT)
    extent = "first" if ids.numel() == options.tokens else "only"
    print(headline(loaded), f"the {extent} {ids.numel()} tokens of {source}", sep="\n", flush=True)
    comparison = Comparison(loaded, ids, options.candidates)
    comparison.measure(repeats=options.repeats)
    print("\n" + report.table(comparison.outcomes) + "\n", flush=True)
    if load_average > BUSY_LOAD:
        print(f"Other programs were running (load {load_average:.1f}): the times are not reliable.")

    picture = options.out / "demo.png"
    write_file(picture, picture_of(comparison, subtitle=f"{headline(loaded)}; text: {source}"))
    results = {
        "model": loaded.describe(),
        "text": {"source": source, "tokens": ids.numel()},
        "passkey": {"tokens": comparison.passkeys[0].ids.numel(), "depths": PASSKEY_DEPTHS},
        "outcomes": [report.outcome_json(outcome) for outcome in comparison.outcomes],
        "environment": {**report.environment(), "load_average_before": load_average},
        "elapsed_s": time.perf_counter() - start,
    }
    numbers = options.out / "demo.json"
    write_file(numbers, (json.dumps(results, indent=1) + "\n").encode())
    print(f"{time.perf_counter() - start:.0f} s in all; look at {picture}, read {numbers}")


def native_dtype() -> torch.dtype:
    """Return the dtype that the processor multiplies fastest."""
    return torch.bfloat16 if "bf16" in report.instruction_set() else torch.float32


def headline(loaded: LoadedModel) -> str:
    """Name the model and the machine in one line."""
    model = loaded.describe()
    return (
        f"{model['name']}, {model['dtype']}, {torch.get_num_threads()} threads on"
        f" {report.processor_name()} ({report.instruction_set()})"
    )


def check_candidates(candidates: Sequence[Candidate], loaded: LoadedModel) -> None:
    """Refuse patterns that the library or the model will not take, before minutes of work."""
    config = loaded.model.config
    probe = torch.zeros(1, 64, config.num_attention_heads, config.head_dim)
    for candidate in candidates:
        try:
            if isinstance(candidate.patterns, minference.HeadConfig):
                heads = [config.num_attention_heads] * loaded.num_layers
                candidate.patterns.check_fits(heads, source=candidate.name)
            else:
                minference.density(probe, probe, candidate.patterns)
        except (ValueError, NotImplementedError) as error:
            msg = f"--patterns {candidate.name}: {error}"
            raise DemoError(msg) from error


def picture_of(comparison: Comparison, *, subtitle: str) -> bytes:
    """Draw the picture of a finished comparison: a PNG."""
    sparse = [each for each in comparison.candidates if each.patterns != minference.Dense()]
    shown = sparse[:PICTURED_CANDIDATES]
    heads = [
        head_maps(layer, head_idx, shown)
        for layer, head_idx in zip(
            comparison.captured, choose_heads(comparison.captured), strict=True
        )
    ]
    bars = [
        TimeBar(outcome.name, outcome.median_attention_s, outcome.median_total_s)
        for outcome in comparison.outcomes
    ]
    seqlen = comparison.ids.numel()
    title = f"Prefill of {seqlen} tokens: where attention goes, and which keys each pattern kept"
    stream = io.BytesIO()
    draw_picture(
        stream,
        heads,
        [candidate.name for candidate in shown],
        bars,
        title=title,
        subtitle=subtitle,
        seqlen=seqlen,
    )
    return stream.getvalue()


def prepare_folder(folder: Path) -> None:
    """Create the output folder, and find out now whether it can take the results."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise output_error(folder, error) from error
    if free < OUTPUT_BYTES:
        raise output_error(folder, OSError(errno.ENOSPC, "No space left on device"))
    probe = folder / ".demo.tmp"
    write_file(probe, b"")
    probe.unlink()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> DemoError:
    """Say why ``path`` cannot be written, and what to do about it."""
    remedy = "free some space, or " if error.errno == errno.ENOSPC else ""
    return DemoError(
        f"cannot write {path} ({error.strerror}): {remedy}choose another folder with --out DIR"
    )
