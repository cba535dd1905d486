# SPDX-License-Identifier: Apache-2.0
"""Draws docs/hopper.png: what a row tile of a vertical-slash head attends, and how.

    python -m tools.hopper_picture [FILE]

The tiles are those of csrc/core/key_tiles.h for the lists below. The times are schematic: nothing
here was measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLOCK = 64
FIRST_ROW = 8 * BLOCK  # Row blocks 8 and 9 of a call with as many rows as keys.
COLUMNS = (2, 17, 33, 60, 118, 240, 371, 431, 517)
RUNS = ((0, 128), (230, 358), (400, 464))  # Distances [lo, hi) from the row block's end.

INK, MUTED, FUTURE = "#1d2433", "#6b7487", "#eceef3"
CONSUMER_COLORS = ("#0f7b6c", "#c8622d")
LOAD_COLOR = "#5b6b8c"


@dataclass
class Tile:
    """Keys that are loaded once, and the row blocks that attend some of them."""

    begin: int
    is_columns: bool = False
    attended: dict[int, bool] = field(default_factory=dict)  # Row block -> whether it needs a mask.


def end_of(row_block: int) -> int:
    return FIRST_ROW + (row_block + 1) * BLOCK


def keys_of_runs(row_block: int) -> np.ndarray:
    mask = np.zeros(FIRST_ROW + 2 * BLOCK, dtype=bool)
    for lo, hi in RUNS:
        mask[max(0, end_of(row_block) - hi) : max(0, end_of(row_block) - lo)] = True
    return mask


def attended_keys() -> np.ndarray:
    """Rows of both row blocks x keys."""
    mask = np.zeros((2 * BLOCK, FIRST_ROW + 2 * BLOCK), dtype=bool)
    for row in range(2 * BLOCK):
        mask[row] = keys_of_runs(row // BLOCK)
        mask[row, list(COLUMNS)] = True
        mask[row, FIRST_ROW + row + 1 :] = False
    return mask


def tiles() -> list[Tile]:
    """Columns first, then contiguous tiles by ascending key, each for one row block or both."""
    columns = Tile(0, is_columns=True, attended={0: True, 1: True})
    by_begin: dict[int, Tile] = {}
    for row_block in range(2):
        for lo, hi in RUNS:
            end = end_of(row_block)
            for begin in range(end - hi, end - lo, BLOCK):
                tile = by_begin.setdefault(begin, Tile(begin))
                tile.attended[row_block] = begin + BLOCK > end - BLOCK
    return [columns, *(by_begin[begin] for begin in sorted(by_begin))]


# ---- Panels --------------------------------------------------------------------------------------


def draw_mask(axes: Axes) -> None:
    mask = attended_keys()
    image = np.where(mask, 2, 1)
    image[BLOCK:][mask[BLOCK:]] = 3
    for row in range(2 * BLOCK):
        image[row, FIRST_ROW + row + 1 :] = 0
    axes.imshow(
        image,
        cmap=ListedColormap([FUTURE, "#ffffff", *CONSUMER_COLORS]),
        aspect="auto",
        interpolation="nearest",
    )
    axes.axhline(BLOCK - 0.5, color=INK, linewidth=0.8)
    names = [f"row block {8 + i}\nconsumer {i}" for i in range(2)]
    axes.set_yticks([BLOCK / 2, 3 * BLOCK / 2], names)
    axes.set_xlabel("key", color=MUTED)
    axes.set_title(
        "What a row tile of a vertical-slash head attends: columns, and runs of diagonals, which "
        "move on with the row block",
        loc="left",
        fontsize=10,
        color=INK,
    )


def draw_stages(axes: Axes, listed: list[Tile]) -> None:
    """A box per tile in loading order; its halves are the consumers that multiply it."""
    for i, tile in enumerate(listed):
        x = i + 0.35 * (i // 2)
        for row_block in range(2):
            attended = row_block in tile.attended
            axes.add_patch(
                Rectangle(
                    (x, 1 - row_block),
                    0.94,
                    0.94,
                    facecolor=CONSUMER_COLORS[row_block] if attended else "#ffffff",
                    edgecolor=INK,
                    hatch="///" if tile.attended.get(row_block) else None,
                    linewidth=0.6,
                )
            )
        label = "columns,\ngathered" if tile.is_columns else f"{tile.begin} to\n{tile.begin + 63}"
        axes.text(x + 0.47, -0.15, label, ha="center", va="top", fontsize=7.5, color=INK)
        if i % 2 == 0:
            axes.text(x, 2.12, f"stage {i // 2}", fontsize=8, color=MUTED)
    axes.set_xlim(-0.1, len(listed) + 0.35 * (len(listed) // 2) + 0.1)
    axes.set_ylim(-1.0, 2.5)
    axes.axis("off")
    axes.set_title(
        "The same as tiles of 64 keys, each loaded once, two to a stage (hatched: with a mask; "
        "white: passed over)",
        loc="left",
        fontsize=10,
        color=INK,
    )


def draw_pipeline(axes: Axes) -> None:
    """Schematic: lanes are the loader and the consumers; time runs to the right."""

    def box(lane: float, begin: float, length: float, text: str, color: str, height: float) -> None:
        axes.add_patch(Rectangle((begin, lane), length, height, facecolor=color, edgecolor="white"))
        axes.text(
            begin + length / 2,
            lane + height / 2,
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            color="white",
        )

    for i, load in enumerate(["K0", "K1", "V0", "K2", "V1", "K3", "V2", "K4", "V3", "K5"]):
        box(3.1, 1.0 * i, 0.98, load, LOAD_COLOR if load[0] == "K" else "#8793ab", 0.7)
    for consumer, lane in ((0, 1.6), (1, 0.1)):
        color = CONSUMER_COLORS[consumer]
        for i in range(4):
            begin = 1.2 + 2.0 * i + 1.0 * consumer
            values = f"\nO += P{i - 1} V{i - 1}" if i > 0 else ""
            box(lane + 0.6, begin, 0.97, f"S = q K{i}{values}", color, 0.6)
            box(lane, begin + 0.5 + (0.0 if i else 0.1), 1.3, f"softmax {i}", "#98a2b5", 0.5)
    lanes = (
        (3.45, "TMA"),
        (2.5, "consumer 0\ntensor cores"),
        (1.85, "other units"),
        (1.0, "consumer 1\ntensor cores"),
        (0.35, "other units"),
    )
    for y, name in lanes:
        axes.text(-0.15, y, name, ha="right", va="center", fontsize=8, color=INK)
    axes.set_xlim(-1.6, 10.2)
    axes.set_ylim(-0.1, 4.1)
    axes.axis("off")
    axes.set_title(
        "The pipeline (schematic): consumers issue products in turns; each one's softmax runs "
        "beside its own product with V and the other's products",
        loc="left",
        fontsize=10,
        color=INK,
    )


def main() -> None:
    figure = Figure(figsize=(11.5, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    mask, stages, pipeline = figure.subplots(3, 1, height_ratios=(1.0, 0.95, 1.35))
    draw_mask(mask)
    draw_stages(stages, tiles())
    draw_pipeline(pipeline)
    picture = Path(__file__).parent.parent / "docs" / "hopper.png"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else picture
    figure.savefig(target, dpi=110)
    print(target)


if __name__ == "__main__":
    main()
