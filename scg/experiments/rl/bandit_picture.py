"""The picture of the bandit: what is left of the variance, exactly and with trained controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scg.panels import png

Bars = Mapping[int, Mapping[str, float]]
SHADES = ("#d98a00", "#3b8f5a", "#2f6db5", "#b8324a", "#7c54a5", "#555555")


def draw_bars(exact: Bars, trained: Bars) -> bytes:
    """Return a PNG with the variances by name for each number of actions; needs matplotlib."""

    def draw(grid: Any) -> None:
        _panel(grid[0, 0], exact, "variance that actions cause, random costs")
        _panel(grid[0, 1], trained, "variance of the gradient, trained controls")

    return png(1, 2, draw)


def _panel(axes: Any, bars: Bars, title: str) -> None:
    """Draw a group of bars for each number of actions; what is 0 shows by its number."""
    names = [*next(iter(bars.values()))]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        heights = [values[name] for values in bars.values()]
        places = [place + (index - (len(names) - 1) / 2) * width for place in range(len(bars))]
        axes.bar(places, heights, width * 0.92, color=SHADES[index % len(SHADES)], label=name)
        for place, height in zip(places, heights, strict=True):
            told = f"{height:.2f}".lstrip("0") if abs(height) >= 0.005 else "0"
            axes.text(place, height, told, ha="center", va="bottom", fontsize=6)
    axes.set(title=title, xticks=range(len(bars)), xticklabels=[f"{n} actions" for n in bars])
    axes.legend(loc="best")
