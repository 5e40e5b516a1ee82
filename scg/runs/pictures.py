"""The picture of a run: all that loops logged, against steps; needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from scg.panels import COLOURS, png
from scg.runs.history import Row, columns

WIDE = 3


def curves(parts: Mapping[str, Sequence[Row]]) -> bytes | None:
    """Return a PNG with a panel for each name that was logged and a line for each loop; None without any."""
    names = [*dict.fromkeys(n for rows in parts.values() for row in rows for n in row)]
    names = [name for name in names if name not in ("step", "seconds")]
    if not names:
        return None
    wide = min(WIDE, len(names))

    def draw(grid: Any) -> None:
        places = list(grid.ravel())
        for name, axes in zip(names, places, strict=False):
            _panel(axes, name, parts)
        for axes in places[len(names) :]:
            axes.set_axis_off()

    return png(-(-len(names) // wide), wide, draw)


def _panel(axes: Any, name: str, parts: Mapping[str, Sequence[Row]]) -> None:
    for index, (part, rows) in enumerate(parts.items()):
        steps, values = columns(rows, name)
        if not len(steps):
            continue
        mean = values if values.dim() == 1 else values.mean(1)
        mean = mean.where(mean.isfinite(), torch.nan)
        axes.plot(steps.numpy(), mean.numpy(), color=COLOURS[index % len(COLOURS)], lw=1.2, label=part)
    axes.set(title=name, xlabel="steps")
    if len(parts) > 1:
        axes.legend(loc="best")
