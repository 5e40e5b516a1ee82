"""The picture: variance times time of every estimator, a panel for each graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scg.comparison.comparison import STANDARD, Comparison
from scg.experiments.pictures import png

RIGHT, BIASED, OTHER = "#2f6db5", "#b8324a", "#d98a00"
LEAST = 1e-3
"""Where what has no variance is drawn, relative to the least that has some."""


def drawn(found: Mapping[str, Comparison]) -> bytes:
    """Return a PNG with a row of dots for every estimator; needs matplotlib."""

    def draw(grid: Any) -> None:
        for axes, (name, own) in zip(grid[0], found.items(), strict=True):
            panel(axes, name, own)

    return png(1, len(found), draw)


def panel(axes: Any, name: str, found: Comparison) -> None:
    """Draw variance times time and times evaluations, relative to leave-one-out; what is exact is a word."""
    rows = list(reversed(found.rows))
    for place, row in enumerate(rows):
        colour = RIGHT if row.is_right else BIASED
        if not row.variance:
            axes.annotate("exact", (0, place), xycoords=("axes fraction", "data"), color=colour, va="center")
            continue
        axes.plot(found.relative(row, "seconds"), place, "o", color=colour, ms=4)
        axes.plot(found.relative(row, "evaluations"), place, "|", color=OTHER, ms=7)
    axes.axvline(1, color="black", linewidth=0.7, linestyle=":")
    axes.set(
        title=name, xscale="log", ylim=(-0.7, len(rows) - 0.3), xlabel=f"variance x time, over {STANDARD}"
    )
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=6)
