"""Panels: pictures of several of them in one style, drawn without pyplot."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from scg.errors import ScgError

WIDTH, HEIGHT, DPI = 3.9, 3.2, 140
COLOURS = ("#2f6db5", "#b8324a", "#d98a00", "#3b8f5a", "#7c54a5", "#7a5a3a", "#2a9d9d", "#555555")
"""Of curves that have no colour of their own, in turn."""
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
