# SPDX-License-Identifier: Apache-2.0
"""Attention on a GPU: rates, against its own dense, against torch, and against the original.

    python -m bench.gpu_attention --json bench/results/<machine>/gpu_attention.json
    python -m bench.gpu_attention --original minference-0.1.6.0    # with MInference's own kernels

bf16, head_dim 128, 32 query heads on 8 KV heads, batch 1 unless said. Most important rows first.
What a figure should be at least or at most stands beside it. Results are checked before timing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench.gpu_attention_rows import (
    a_shape,
    blocks,
    dense,
    few_rows,
    long_vertical_slash,
    memory,
    merge,
    mixed,
    short_prompts,
    sparse,
    vertical_slash,
)
from bench.gpu_contenders import FP16
from bench.gpu_timing import Experiments, GpuRun, main

EXPERIMENTS = Experiments()

# ---- Rows, most important first ------------------------------------------------------------------

Row = Callable[[GpuRun], None]
ROWS: list[tuple[str, str, Row]] = [
    ("dense-32k", "Dense, S 32768, against torch.", partial(dense, size="32k", at_least=1.0)),
    ("dense-16k", "Dense, S 16384, against torch.", partial(dense, size="16k", vs_cudnn=0.95)),
    (
        "sparse-128k",
        "Given runs, columns and blocks, S 131072: what choosing keys costs.",
        partial(sparse, size="128k"),
    ),
    (
        "vs-128k",
        "Vertical-slash (1000, 6096), all stages, S 131072, against torch and MInference.",
        partial(vertical_slash, size="128k", vs_cudnn=2.0),
    ),
    (
        "mixed-128k",
        "Four patterns in one call, S 131072, against a call for each.",
        partial(mixed, size="128k"),
    ),
    ("rows-32k", "1, 64 and 512 rows over 32768 keys.", partial(few_rows, size="32k")),
    (
        "dense-128k",
        "Dense, S 131072, against torch.",
        partial(dense, size="128k", vs_cudnn=0.95),
    ),
    ("dense-8k", "Dense, S 8192, against torch.", partial(dense, size="8k")),
    (
        "vs-1m",
        "Vertical-slash (1000, 6096), all stages, S 1048576; one round of torch.",
        partial(long_vertical_slash, size="1m", vs_cudnn=6.0),
    ),
    (
        "vs-512k",
        "Vertical-slash (1000, 6096), all stages, S 524288; one round of torch.",
        partial(long_vertical_slash, size="512k", vs_cudnn=None),
    ),
    ("short", "Vertical-slash against dense, 1K to 16K.", short_prompts),
    ("rows-128k", "1, 64 and 512 rows over 131072 keys.", partial(few_rows, size="128k")),
    ("merge-128k", "Merging two parts, S 131072.", partial(merge, size="128k")),
    ("memory-1m", "Work memory of vertical-slash, S 1048576.", partial(memory, size="1m")),
    (
        "vs-32k",
        "Vertical-slash (1000, 6096), all stages, S 32768, against torch and MInference.",
        partial(vertical_slash, size="32k"),
    ),
    (
        "mixed-32k",
        "Four patterns in one call, S 32768, against a call for each.",
        partial(mixed, size="32k"),
    ),
    (
        "vs-8k",
        "Vertical-slash (1000, 6096), all stages, S 8192: launches and the host count.",
        partial(vertical_slash, size="8k"),
    ),
    *(
        (
            f"dense-d{dim}",
            f"Dense, head_dim {dim}, S 32768.",
            partial(dense, size="32k", head_dim=dim),
        )
        for dim in (64, 96, 256)
    ),
    ("dense-fp16", "Dense, fp16, S 32768.", partial(dense, size="32k", dtype=FP16)),
    (
        "a-shape-128k",
        "A-shape 128 + 1024, S 131072, against FlexAttention.",
        partial(a_shape, size="128k"),
    ),
    (
        "blocks-128k",
        "Lists of 64-wide blocks, S 131072, against FlexAttention.",
        partial(blocks, size="128k"),
    ),
]


def register(name: str, title: str, row: Row) -> None:
    def experiment(run: GpuRun) -> None:
        row(run)

    experiment.__doc__ = title
    EXPERIMENTS.register(name)(experiment)


for each in ROWS:
    register(*each)


def add_options(parser: argparse.ArgumentParser) -> None:
    source = os.environ.get("MINFERENCE_SOURCE")
    parser.add_argument(
        "--original",
        type=Path,
        metavar="DIR",
        default=Path(source) if source else None,
        help="MInference's source package, unpacked (default: $MINFERENCE_SOURCE)",
    )


if __name__ == "__main__":
    main((__doc__ or "").strip().splitlines()[0], EXPERIMENTS, add_options)
