"""Ink: a layout as a matplotlib figure, drawn without pyplot."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.text import Text

from scg.draw.layout import TITLE, Box, Frame, Layout, Route
from scg.draw.shapes import LEADING, SMALL, font_size

_INK, _FAINT, _COST = "#222222", "#7a7a7a", "#f6e8cd"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scg",
    "savefig.bbox": None,
    "savefig.transparent": False,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "font.family": ["sans-serif"],
    "font.style": "normal",
    "font.weight": "normal",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "text.usetex": False,
    "path.sketch": None,
    "path.effects": [],
}
_PNG_DPI, _PNG_PIXELS = 200.0, 5e7


def render(picture: Layout, kind: str) -> bytes:
    """Return the file contents of a layout, ``kind`` being "svg" or "png"; huge PNGs get fewer pixels."""
    sink = io.BytesIO()
    dpi = min(_PNG_DPI, 72 * math.sqrt(_PNG_PIXELS / (picture.width * picture.height)))
    dpi = min(dpi, 72 * 60_000 / max(picture.width, picture.height))
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with mpl.rc_context(_STYLE):
        figure(picture).savefig(sink, format=kind, dpi=dpi, facecolor="white", metadata=metadata)
    return sink.getvalue()


def figure(picture: Layout) -> Figure:
    """Return a layout as a figure whose unit is the point."""
    canvas = Figure(figsize=(picture.width / 72, picture.height / 72), facecolor="white")
    axes = canvas.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.set_axis_off()
    for artist in _artists(picture):
        artist.set_clip_on(False)
        axes.add_artist(artist)
    return canvas


def _artists(picture: Layout) -> Iterator[Artist]:
    """Yield frames, arrows, nodes and letters, back to front."""
    for frame in picture.frames:
        yield _plate(frame)
    for route in picture.routes:
        yield from _arrow(route)
    for frame in picture.frames:
        yield _title(frame)
    for box in picture.boxes:
        if box.glyph.shape != "text":
            yield _outline(box)
        yield from _letters(box)


def _plate(frame: Frame) -> Artist:
    corner, size = (frame.left, frame.top), (frame.right - frame.left, frame.bottom - frame.top)
    look: dict[str, Any] = {"fill": False, "edgecolor": _FAINT, "linewidth": 0.9, "zorder": 1}
    return FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=7", **look)


def _title(frame: Frame) -> Artist:
    x, side = (frame.left + 6, "left") if frame.title_left else (frame.right - 6, "right")
    return _text(
        x,
        frame.bottom - TITLE / 2 - 1,
        frame.title,
        SMALL,
        color=_FAINT,
        horizontalalignment=side,
        zorder=3,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
    )


def _arrow(route: Route) -> Iterator[Artist]:
    """Yield the line, ending inside the head, and the head, pointing down."""
    x, y = route.points[-1]
    points = (*route.points[:-1], (x, y - 4))
    vertices, codes = [points[0]], [Path.MOVETO]
    for (x0, y0), (x1, y1) in pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [Path.CURVE4] * 3
    line = Path(vertices, codes)
    yield PathPatch(line, fill=False, edgecolor=_INK, linewidth=0.8, capstyle="butt", zorder=2)
    head = [(x, y), (x - 2.6, y - 6.5), (x + 2.6, y - 6.5)]
    yield Polygon(head, closed=True, facecolor=_INK, edgecolor="none", zorder=2)


def _outline(box: Box) -> Artist:
    glyph = box.glyph
    look: dict[str, Any] = {"edgecolor": _INK, "facecolor": "white", "linewidth": 1.0, "zorder": 4}
    if glyph.shape == "circle":
        return Ellipse((box.x, box.y), glyph.width, glyph.height, **look)
    rounding = 6 if glyph.shape == "cost" else 0.01
    look["facecolor"] = _COST if glyph.shape == "cost" else "white"
    look["linewidth"] = 0.6 if glyph.shape == "operator" else 1.0
    style = f"round,pad=0,rounding_size={rounding}"
    return FancyBboxPatch((box.left, box.top), glyph.width, glyph.height, boxstyle=style, **look)


def _letters(box: Box) -> Iterator[Text]:
    """Yield the lines of a node, centred as a block."""
    sizes = [font_size(box.glyph.shape, line) * LEADING for line in range(len(box.glyph.lines))]
    y = box.y - sum(sizes) / 2
    for line, (words, height) in enumerate(zip(box.glyph.lines, sizes, strict=True)):
        look = {"color": _FAINT if line else _INK, "horizontalalignment": "center", "zorder": 5}
        yield _text(box.x, y + height / 2, words, height / LEADING, **look)
        y += height


def _text(x: float, y: float, words: str, size: float, **look: Any) -> Text:
    return Text(x, y, words, fontsize=size, verticalalignment="center_baseline", parse_math=False, **look)
