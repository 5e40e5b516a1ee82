"""The picture of the autoencoder: bounds against steps and against seconds of the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scg.experiments.pictures import band
from scg.experiments.vae.results import Curve
from scg.panels import COLOURS, png

STYLES = ("-", "--", ":")


def draw_curves(curves: Sequence[Curve]) -> bytes:
    """Return a PNG with every policy at its best rate; needs matplotlib."""

    def draw(grid: Any) -> None:
        for axes, by in zip(grid[0], ("steps", "seconds"), strict=True):
            for index, curve in enumerate(curves):
                x = curve.steps if by == "steps" else curve.seconds
                bound = curve.of_rate(curve.bound, curve.best)
                label = f"{curve.label}, {curve.rates[curve.best]:g}"
                style = STYLES[index // len(COLOURS) % len(STYLES)]
                band(axes, x, bound, label, COLOURS[index % len(COLOURS)], style=style)
            axes.set(title="bound on images to train on", xlabel=by)
            # The first points are far below all that tells policies apart.
            late = [float(value) for c in curves for value in c.of_rate(c.bound, c.best).mean(1)[1:]]
            if late:
                low, high = sorted(late)[len(late) // 10], max(late)
                axes.set(ylim=(low - 0.1 * (high - low) - 0.05, high + 0.1 * (high - low) + 0.05))
        if len(curves) > len(COLOURS):  # in the order in which they end, beside the last panel
            handles, labels = grid[0][1].get_legend_handles_labels()
            ends = [float(curve.of_rate(curve.bound, curve.best)[-1].mean()) for curve in curves]
            order = sorted(range(len(curves)), key=lambda index: -ends[index])
            places = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
            grid[0][1].legend([handles[i] for i in order], [labels[i] for i in order], **places)
        else:
            grid[0][0].legend(loc="best")

    return png(1, 2, draw)
