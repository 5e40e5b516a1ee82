"""Pictures of experiments: panels in one style, drawn without pyplot."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from scg.errors import ScgError
from scg.experiments.means import standard_error

WIDTH, HEIGHT, DPI = 3.9, 3.2, 140
STYLE: Any = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7a7a7a",
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "text.parse_math": False,
}


def require_matplotlib() -> None:
    """Raise what to install before anything long is begun."""
    if find_spec("matplotlib") is None:
        raise ScgError('pictures need matplotlib: pip install "scg[draw]"')


def png(rows: int, columns: int, draw: Callable[[Any], None]) -> bytes:
    """Return a PNG of panels that ``draw`` fills, given as an array [rows, columns]; needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sink = io.BytesIO()
    with rc_context(STYLE):
        size = (WIDTH * columns, HEIGHT * rows)
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        draw(figure.subplots(rows, columns, squeeze=False))
        figure.savefig(sink, format="png", dpi=DPI, metadata={"Software": None})
    return sink.getvalue()


def band(
    axes: Any, x: Tensor, values: Tensor, label: str, colour: str, *, width: float = 1.3, layer: int = 0
) -> None:
    """Draw the mean of values [points, seeds] over seeds within two standard errors."""
    mean = values.mean(1)
    mean = mean.where(mean.isfinite(), math.nan)
    error = 2 * standard_error(values)
    low, high = (mean - error).numpy(), (mean + error).numpy()
    axes.fill_between(x.numpy(), low, high, color=colour, alpha=0.2, lw=0, zorder=1)
    axes.plot(x.numpy(), mean.numpy(), color=colour, lw=width, label=label, zorder=2 + layer / 100)
