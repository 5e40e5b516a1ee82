"""The picture: variance times time of every estimator, a panel for each graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scg.comparison.comparison import STANDARD, Comparison
from scg.panels import png

RIGHT, BIASED, COUNTED = "#2f6db5", "#b8324a", "#d98a00"
COLUMNS = 3


def drawn(found: Mapping[str, Comparison]) -> bytes:
    """Return a PNG with a panel for each graph, and one that says what is what; needs matplotlib."""

    def draw(grid: Any) -> None:
        first, *rest = grid.flat
        for axes in rest[len(found) - 1 :]:
            axes.axis("off")
        for axes, (name, own) in zip((first, *rest), found.items(), strict=False):
            panel(axes, name, own)
        key(grid.flat[-1] if len(found) < grid.size else first)

    columns = min(len(found), COLUMNS)
    return png(-(-len(found) // columns), columns, draw)


def panel(axes: Any, name: str, found: Comparison) -> None:
    """Draw variance times time and times evaluations, over that of leave-one-out; "exact" is a word."""
    rows = list(reversed(found.rows))
    for place, row in enumerate(rows):
        colour = RIGHT if row.is_right else BIASED
        if not row.variance:
            where = ("axes fraction", "data")
            axes.annotate(" exact", (0, place), xycoords=where, color=colour, va="center", fontsize=6)
        else:
            axes.plot(found.relative(row, "seconds"), place, "o", color=colour, markersize=4)
            axes.plot(found.relative(row, "evaluations"), place, "|", color=COUNTED, markersize=7)
    axes.axvline(1, color="black", linewidth=0.7, linestyle=":")
    axes.set(title=name, xscale="log", ylim=(-0.7, len(rows) - 0.3), xlabel=f"relative to {STANDARD}")
    axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=6)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def key(axes: Any) -> None:
    """Say what the marks are."""
    told = (("o", RIGHT, "variance x time"), ("o", BIASED, "the same, biased"))
    for mark, colour, text in (*told, ("|", COUNTED, "variance x evaluations")):
        axes.plot([], [], mark, color=colour, label=text)
    axes.legend(loc="center" if not axes.axison else "best")
