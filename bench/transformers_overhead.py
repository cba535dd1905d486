# SPDX-License-Identifier: Apache-2.0
"""What the transformers integration costs: time of a prefill spent outside torch's ops.

    python -m bench.transformers_overhead --tokens 8192

Prefills a real text with SmolLM2 under torch's profiler. Every call of minference's mask function
and attention function is a range of the profile; its time outside the ops is that of the range
minus that of the ops in it. These figures include the profiler's own cost, so they are upper
bounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import minference
import torch
from minference.demo.inputs import find_weights, first_tokens, load_model, read_text
from minference.integrations import transformers as integration
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import AttentionInterface, AttentionMaskInterface

from bench.machine import environment

RANGES = {"mask": "minference.mask", "attention": "minference.attention"}
PATTERNS = {
    "dense": minference.Dense(),
    "vertical_slash 500 700": minference.VerticalSlash(500, 700),
    "a_shape 128 1024": minference.AShape(128, 1024),
}
PREFILL = "prefill"


def ranged(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return function(*args, **kwargs)

    return call


def outermost_ops(event: Any) -> Iterator[Any]:
    """The ops in a range, except those inside other ops."""
    for child in event.cpu_children:
        if child.name in RANGES.values():
            yield from outermost_ops(child)
        else:
            yield child


def measure(model: Any, ids: torch.Tensor) -> dict[str, float]:
    """Milliseconds of one prefill: all of it, and what our functions spend outside the ops."""
    cpu = [ProfilerActivity.CPU]
    with torch.no_grad(), profile(activities=cpu) as profiler, record_function(PREFILL):
        model.model(ids, use_cache=True)
    found = dict.fromkeys(["total", "outside_all", *RANGES], 0.0)
    names = {PREFILL: "outside_all"} | {label: name for name, label in RANGES.items()}
    for event in profiler.events():
        if event.name in names:
            ops = sum(op.cpu_time_total for op in outermost_ops(event))
            found[names[event.name]] += (event.cpu_time_total - ops) / 1e3
        if event.name == PREFILL:
            found["total"] = event.cpu_time_total / 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    env = environment()
    print(env)
    loaded = load_model(find_weights(), dtype=torch.bfloat16)
    tokens = args.tokens
    ids = first_tokens(loaded.tokenizer, read_text(None), tokens=tokens, at_least=tokens)[None]
    attention = ranged(RANGES["attention"], integration.minference_attention_forward)
    AttentionInterface.register(integration.NAME, attention)
    mask = ranged(RANGES["mask"], integration.minference_mask)
    AttentionMaskInterface.register(integration.NAME, mask)
    rows = {}
    for name, pattern in PATTERNS.items():
        minference.set_patterns(loaded.model, pattern, min_seqlen=1)
        measure(loaded.model, ids[:, :256])  # Starts threads and maps memory.
        rounds = [measure(loaded.model, ids) for _ in range(args.rounds)]
        row = {key: median(r[key] for r in rounds) for key in rounds[0]}
        row["share"] = (row["mask"] + row["attention"]) / row["total"]
        row["share_all"] = row["outside_all"] / row["total"]
        rows[name] = row
        print(
            f"{name:24s} prefill {row['total']:8.1f} ms; outside the ops: mask"
            f" {row['mask']:.2f} ms, attention {row['attention']:.2f} ms:"
            f" {row['share']:.3%} of the prefill;"
            f" with the model's own Python {row['share_all']:.3%}"
        )
    if args.json:
        result = {"environment": env, "tokens": args.tokens, "rows": rows}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
