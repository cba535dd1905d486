# SPDX-License-Identifier: Apache-2.0
"""The demo's picture: attention of a few heads over the keys each pattern kept, and the times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minference.demo.maps import HeadMaps

INK, MUTED, PAPER, FUTURE = "#1d2433", "#6b7487", "#ffffff", "#eceef3"
DENSE_BAR, SPARSE_BAR, REST_BAR = "#8a93a6", "#0f7b6c", "#dfe3ea"
MISSED = "#e0243a"
DENSE_COLORS = matplotlib.colormaps["magma"]
KEPT_COLORS = LinearSegmentedColormap.from_list("kept", ["#fbfcfd", "#9fd8cd", "#0f7b6c"])
MISSED_COLORS = LinearSegmentedColormap.from_list("missed", ["#fbfcfd", MISSED])
MASS_RANGE = (1e-5, 1e-1)  # Share of a query's attention in a cell; heads differ over 4 decades.
MASS_NORM = LogNorm(*MASS_RANGE)
KEPT_NORM = PowerNorm(0.5, 0, 100)  # Percent. A kept column is one key of the 32 in a cell.


@dataclass(frozen=True)
class TimeBar:
    """Times of one way to attend, seconds."""

    name: str
    attention_s: float
    total_s: float


def draw_picture(
    stream: BinaryIO,
    heads: Sequence[HeadMaps],
    patterns: Sequence[str],
    bars: Sequence[TimeBar],
    *,
    title: str,
    subtitle: str,
    seqlen: int,
) -> None:
    """Draw the picture and write it as a PNG.

    Args:
        stream: Receives the PNG.
        heads: Columns of maps. Each holds one kept map per entry of ``patterns``.
        patterns: Names of the rows below the row of dense attention.
        bars: Times, the baseline first.
        title: First line.
        subtitle: Second line, smaller.
        seqlen: Tokens along each side of a map.
    """
    # Inches: square maps of 3.1, a bar of 0.42, and what the labels need.
    rows = 1 + len(patterns)
    map_height, bar_height, top, gap = 3.35 * rows, 0.9 + 0.42 * len(bars), 1.0, 0.55
    height = top + map_height + gap + bar_height
    figure = Figure(figsize=(3.1 * len(heads) + 2.0, height), facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.text(0.03, 1 - 0.40 / height, title, fontsize=17, weight="bold", color=INK)
    figure.text(0.03, 1 - 0.70 / height, subtitle, fontsize=10.5, color=MUTED)

    maps = figure.add_gridspec(
        rows,
        len(heads) + 1,
        left=0.08,
        right=0.94,
        top=1 - top / height,
        bottom=(bar_height + gap) / height,
        width_ratios=[1.0] * len(heads) + [0.05],
        wspace=0.09,
        hspace=0.20,
    )
    for column, head in enumerate(heads):
        for row in range(rows):
            axes = figure.add_subplot(maps[row, column])
            draw_map(axes, head, row, seqlen=seqlen)
            axes.tick_params(labelleft=column == 0, labelbottom=row == rows - 1)
            if column == 0:
                name = ("dense attention", *patterns)[row]
                axes.set_ylabel(name, color=INK, fontsize=11, labelpad=8)
            if row == rows - 1:
                axes.set_xlabel("key", color=MUTED, fontsize=9)
    scales = [
        (ScalarMappable(MASS_NORM, DENSE_COLORS), "share of a query's attention"),
        (ScalarMappable(KEPT_NORM, KEPT_COLORS), "keys kept, %"),
        (ScalarMappable(MASS_NORM, MISSED_COLORS), "share of a query's attention missed"),
    ]
    for row, (scale, label) in enumerate(scales[:rows]):
        color_bar = figure.colorbar(scale, cax=figure.add_subplot(maps[row, -1]))
        color_bar.set_label(label, color=MUTED, fontsize=9)
        color_bar.outline.set_visible(False)
        color_bar.ax.tick_params(labelsize=8, colors=MUTED, length=2)

    times = figure.add_gridspec(
        1, 1, left=0.24, right=0.94, top=(bar_height - 0.2) / height, bottom=0.5 / height
    )
    draw_times(figure.add_subplot(times[0]), bars)
    figure.savefig(stream, dpi=110, format="png")


def draw_map(axes: Axes, head: HeadMaps, row: int, *, seqlen: int) -> None:
    """Draw row 0, the dense attention of a head, or row ``i + 1``, what its pattern ``i`` kept."""
    dense = np.asarray(head.dense.attention)
    if row == 0:
        pixels = DENSE_COLORS(MASS_NORM(np.maximum(dense, MASS_RANGE[0])))
        caption = f"layer {head.layer_idx}, head {head.head_idx}"
    else:
        kept = head.kept[row - 1]
        pixels = KEPT_COLORS(KEPT_NORM(100 * np.nan_to_num(np.asarray(kept.keys))))
        missed = np.maximum(dense - np.asarray(kept.attention), MASS_RANGE[0])
        strength = np.clip(MASS_NORM(missed), 0, 1)[..., None]
        pixels = (1 - strength) * pixels + strength * np.array(to_rgba(MISSED))
        caption = f"{kept.mass:.1%} of the attention in {kept.density:.0%} of the tiles"
    future = np.triu(np.ones(dense.shape, dtype=bool), 1)
    pixels[future] = to_rgba(FUTURE)
    axes.imshow(pixels, extent=(0, seqlen, seqlen, 0), interpolation="nearest")
    axes.set_title(caption, fontsize=10.5 if row == 0 else 9.5, color=INK, pad=5)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 4, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 4, 10]))
    axes.tick_params(labelsize=8, colors=MUTED, length=2)
    axes.spines[:].set_visible(False)


def draw_times(axes: Axes, bars: Sequence[TimeBar]) -> None:
    """Draw one horizontal bar per way to attend: its attention, then the rest of the prefill."""
    baseline = bars[0]
    longest = max(bar.total_s for bar in bars)
    for place, bar in enumerate(bars):
        color = DENSE_BAR if place == 0 else SPARSE_BAR
        axes.barh(place, bar.attention_s, color=color, height=0.62)
        axes.barh(
            place, bar.total_s - bar.attention_s, left=bar.attention_s, color=REST_BAR, height=0.62
        )
        text = f"{bar.attention_s:.1f} s attention, {bar.total_s:.1f} s in all"
        if place > 0:
            text += (
                f"   ({baseline.attention_s / bar.attention_s:.1f}x, "
                f"{baseline.total_s / bar.total_s:.1f}x faster)"
            )
        axes.text(bar.total_s + longest / 120, place, text, va="center", fontsize=9.5, color=INK)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=10.5, color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.45)
    axes.set_xlabel(
        "seconds to prefill (dark: attention, light: everything else)", fontsize=9, color=MUTED
    )
    axes.tick_params(axis="x", labelsize=8, colors=MUTED, length=2)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
