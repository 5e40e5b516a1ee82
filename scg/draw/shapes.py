"""What is drawn of a graph: the shape, the lines of text and the size of every node."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scg.errors import GraphError
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Cost, Det, Input, Param, Record, Sample

Shape = Literal["text", "square", "circle", "cost", "operator"]

FONT = 10.0
SMALL = 7.5
LEADING = 1.3
_WIDTHS = {
    **dict.fromkeys("'ijlIJ", 0.31),
    **dict.fromkeys(" ,./:;\\f|-", 0.37),
    **dict.fromkeys("()[]rt!", 0.42),
    **dict.fromkeys("ABCKRVXZ", 0.72),
    **dict.fromkeys("DGHNOQUw&", 0.83),
    **dict.fromkeys("MWm#+<=>^~%@", 1.01),
}


@dataclass(frozen=True)
class Glyph:
    """One node as it is drawn; sizes are in points."""

    name: str
    shape: Shape
    lines: tuple[str, ...]
    width: float
    height: float


def text_width(text: str, size: float) -> float:
    """Bound the width of a line of DejaVu Sans, the widest of the usual sans-serif faces.

    >>> text_width("mill", 10.0) > text_width("ill", 10.0)
    True
    """
    return size * sum(_WIDTHS.get(letter, 0.66 if letter.isascii() else 1.0) for letter in text)


def font_size(shape: Shape, line: int) -> float:
    """Return the size of line 0, the name, or of the remark below it."""
    return SMALL if line or shape == "operator" else FONT


def glyphs(ir: IR, labels: Mapping[str, str] | None = None) -> dict[str, Glyph]:
    """Return the glyph of every drawn node, parents before children; constants are not drawn."""
    labels = labels or {}
    if strangers := sorted(set(labels) - set(ir)):
        raise GraphError(f"labels name {strangers}, which are not nodes: write one of {sorted(ir)}")
    drawn = (record for record in ir.records() if not isinstance(record, Constant))
    return {record.name: _glyph(record, labels.get(record.name, "")) for record in drawn}


def plate_title(ir: IR, plate: str) -> str:
    """Return the text in the corner of a plate: its name and, where known, its size."""
    size = ir.plates[plate].size if plate in ir.plates else None
    return plate if size is None else f"{plate} = {size}"


def _shape(record: Record) -> Shape:
    if isinstance(record, (Input, Param)):
        return "text"
    if isinstance(record, Sample):
        return "circle"
    if isinstance(record, Cost):
        return "cost"
    return "operator" if isinstance(record, Det) and _is_operator(record) else "square"


def _is_operator(record: Det) -> bool:
    """Tell whether the name was made from the function's: ``mul_1`` for ``operator.mul``."""
    stem = str(getattr(record.fn.call, "__name__", "")).strip("_")
    return bool(stem) and re.fullmatch(re.escape(stem) + r"_\d+", record.name) is not None


def _glyph(record: Record, remark: str) -> Glyph:
    shape = _shape(record)
    lines = (record.name, *(remark.splitlines() if remark else ()))
    sizes = [font_size(shape, line) for line in range(len(lines))]
    wide = max(text_width(text, size) for text, size in zip(lines, sizes, strict=True))
    high = LEADING * sum(sizes)
    if shape == "text":
        return Glyph(record.name, shape, lines, wide + 4, high + 4)
    if shape == "operator":
        return Glyph(record.name, shape, lines, wide + 8, high + 6)
    if shape == "circle":
        height = high * 1.25 + 17
        width = wide / math.sqrt(1 - (high / height) ** 2) + 6
        return Glyph(record.name, shape, lines, max(width, height), height)
    height = high + 15
    return Glyph(record.name, shape, lines, max(wide + 16, height), height)
