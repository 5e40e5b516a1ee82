"""Where everything is drawn: boxes, routes and frames, in points from the upper left corner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import networkx as nx

from scg.draw.layers import Layers, build
from scg.draw.nesting import Home, homes
from scg.draw.order import arrange
from scg.draw.shapes import SMALL, Glyph, glyphs, plate_title, text_width
from scg.draw.spacing import PAD, Part, spread
from scg.nodes.ir import IR

Point = tuple[float, float]

MARGIN = 10.0
TITLE = 12.0
_ROW_GAP = 26.0
_PORT_GAP = 9.0


@dataclass(frozen=True)
class Box:
    """A node: its glyph and its centre."""

    glyph: Glyph
    x: float
    y: float

    @property
    def left(self) -> float:
        """The left edge."""
        return self.x - self.glyph.width / 2

    @property
    def right(self) -> float:
        """The right edge."""
        return self.x + self.glyph.width / 2

    @property
    def top(self) -> float:
        """The upper edge."""
        return self.y - self.glyph.height / 2

    @property
    def bottom(self) -> float:
        """The lower edge."""
        return self.y + self.glyph.height / 2


@dataclass(frozen=True)
class Route:
    """An arrow from ``source`` to ``target``: smooth arcs, upright at every one of ``points``."""

    source: str
    target: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Frame:
    """A plate's box; the title stands in a lower corner, on the right unless ``title_left``."""

    plate: str
    title: str
    left: float
    top: float
    right: float
    bottom: float
    title_left: bool = False


@dataclass(frozen=True)
class Layout:
    """A picture without ink."""

    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    frames: tuple[Frame, ...]
    width: float
    height: float


def layout(ir: IR, labels: Mapping[str, str] | None = None) -> Layout:
    """Lay a graph out in rows, parents above children (Sugiyama, Tagawa, Toda 1981), plates unbroken.

    Arrows bend only between rows and pass a row where nothing stands, so none runs through a node.
    """
    drawn = glyphs(ir, labels)
    nodes = list(drawn.values())
    number = {name: item for item, name in enumerate(drawn)}
    dag = nx.DiGraph()
    dag.add_nodes_from(number.values())
    dag.add_edges_from((number[a], number[b]) for a, b in ir.dag.edges if a in number and b in number)
    places = homes(ir, drawn)
    layers = build(dag, list(places.values()))
    titles = {frame: plate_title(ir, frame[-1]) for frame in layers.spans}
    title_widths = {frame: text_width(title, SMALL) + 2 * PAD for frame, title in titles.items()}
    x = spread(layers, arrange(layers), [glyph.width for glyph in nodes], title_widths)
    bands = _bands(layers, nodes, x)
    boxes = [Box(glyph, x[item], sum(bands[layers.row[item]]) / 2) for item, glyph in enumerate(nodes)]
    routes = _routes(layers, boxes, x, bands)
    plates = _frames(layers, titles, x, bands)
    return _fit(boxes, routes, plates)


def _bands(layers: Layers, nodes: Sequence[Glyph], x: Mapping[Part, float]) -> list[Point]:
    """Return the top and the bottom of every row, with space between for slanting arrows and borders."""
    heights = [0.0] * len(layers.rows)
    for item, glyph in enumerate(nodes):
        heights[layers.row[item]] = max(heights[layers.row[item]], glyph.height)
    slant = [0.0] * len(layers.rows)
    for upper, lower in layers.links:
        slant[layers.row[lower]] = max(slant[layers.row[lower]], abs(x[upper] - x[lower]))
    over, under = _insets(layers)
    spans = layers.spans.items()
    bands: list[Point] = []
    bottom = 0.0
    for index, height in enumerate(heights):
        opening = max((over[frame] for frame, (first, _) in spans if first == index), default=0.0)
        closing = max((under[frame] for frame, (_, last) in spans if last == index - 1), default=0.0)
        top = bottom + (_ROW_GAP + min(44.0, 0.1 * slant[index]) if index else 0.0) + opening + closing
        bottom = top + height
        bands.append((top, bottom))
    return bands


def _insets(layers: Layers) -> tuple[dict[Home, float], dict[Home, float]]:
    """Return how far each frame reaches above its first row and below its last one."""
    over: dict[Home, float] = {}
    under: dict[Home, float] = {}
    for frame, (first, last) in reversed(list(layers.spans.items())):
        inner = [other for other in over if len(other) == len(frame) + 1 and other[:-1] == frame]
        over[frame] = PAD + max((over[i] for i in inner if layers.spans[i][0] == first), default=0.0)
        under[frame] = PAD + TITLE + max((under[i] for i in inner if layers.spans[i][1] == last), default=0.0)
    return over, under


def _routes(
    layers: Layers, boxes: Sequence[Box], x: Mapping[Part, float], bands: Sequence[Point]
) -> list[Route]:
    ports = _ports(layers, boxes, x)
    routes = []
    for (source, target), chain in layers.chains.items():
        start, end = boxes[source], boxes[target]
        points = [(start.x, start.bottom), (start.x, bands[layers.row[source]][1])]
        for bend in chain[1:-1]:
            points += [(x[bend], edge) for edge in bands[layers.row[bend]]]
        port = ports[chain[-2], target]
        points += [(port, bands[layers.row[target]][0]), (port, _rim(end, port))]
        distinct = tuple(dict.fromkeys(points))
        routes.append(Route(start.glyph.name, end.glyph.name, distinct))
    return routes


def _ports(layers: Layers, boxes: Sequence[Box], x: Mapping[Part, float]) -> dict[tuple[int, int], float]:
    """Return where the link from each upper item arrives at a node: side by side, near its origin."""
    arriving: dict[int, set[int]] = {}
    for upper, lower in layers.links:
        if lower < len(boxes):
            arriving.setdefault(lower, set()).add(upper)
    ports = {}
    for lower, uppers in arriving.items():
        step = min(_PORT_GAP, 0.6 * boxes[lower].glyph.width / len(uppers))
        order = sorted(uppers, key=lambda item: (x[item], item))
        offsets = _apart([x[upper] - x[lower] for upper in order], step)
        for upper, offset in zip(order, offsets, strict=True):
            ports[upper, lower] = x[lower] + offset
    return ports


def _apart(wishes: Sequence[float], step: float) -> list[float]:
    """Return sorted offsets near the wishes, at least a step apart and at most n / 2 steps from 0."""
    slots = [step * (index - (len(wishes) - 1) / 2) for index in range(len(wishes))]
    slack = step / 2
    rising: list[float] = []
    falling: list[float] = []
    for wish, slot in zip(wishes, slots, strict=True):
        rising.append(min(max(wish, slot - slack, rising[-1] + step if rising else -math.inf), slot + slack))
    for wish, slot in zip(reversed(wishes), reversed(slots), strict=True):
        falling.append(
            max(min(wish, slot + slack, falling[-1] - step if falling else math.inf), slot - slack)
        )
    return [(a + b) / 2 for a, b in zip(rising, reversed(falling), strict=True)]


def _rim(box: Box, x: float) -> float:
    """Return the height at which an upright arrow at ``x`` meets the upper outline of a box."""
    if box.glyph.shape != "circle":
        return box.top
    offset = 2 * (x - box.x) / box.glyph.width
    return box.y - box.glyph.height / 2 * math.sqrt(1 - offset * offset)


def _frames(
    layers: Layers, titles: Mapping[Home, str], x: Mapping[Part, float], bands: Sequence[Point]
) -> list[Frame]:
    over, under = _insets(layers)
    found = []
    for frame, (first, last) in layers.spans.items():
        top, bottom = bands[first][0] - over[frame], bands[last][1] + under[frame]
        left, right = x["left", frame], x["right", frame]
        found.append(Frame(frame[-1], titles[frame], left, top, right, bottom))
    return found


def _fit(boxes: Sequence[Box], routes: Sequence[Route], plates: Sequence[Frame]) -> Layout:
    """Shift everything so that the picture starts at the margin, and measure it."""
    solid: list[Box | Frame] = [*boxes, *plates]
    xs = [edge for part in solid for edge in (part.left, part.right)]
    xs += [x for route in routes for x, _ in route.points]
    ys = [edge for part in solid for edge in (part.top, part.bottom)]
    dx, dy = MARGIN - min(xs, default=0.0), MARGIN - min(ys, default=0.0)

    def at(x: float, y: float) -> Point:
        return round(x + dx, 2), round(y + dy, 2)

    moved = [Route(r.source, r.target, tuple(at(*point) for point in r.points)) for r in routes]
    frames = [Frame(f.plate, f.title, *at(f.left, f.top), *at(f.right, f.bottom)) for f in plates]
    return Layout(
        tuple(Box(box.glyph, *at(box.x, box.y)) for box in boxes),
        tuple(moved),
        tuple(replace(frame, title_left=_crossed(frame, moved)) for frame in frames),
        at(max(xs, default=0.0), 0.0)[0] + MARGIN,
        at(0.0, max(ys, default=0.0))[1] + MARGIN,
    )


def _crossed(frame: Frame, routes: Sequence[Route]) -> bool:
    """Tell whether arrows cross the right corner of a frame's title, and fewer cross the left one."""
    wide = text_width(frame.title, SMALL) + PAD
    hits = {True: 0, False: 0}
    for route in routes:
        for (x0, y0), (x1, y1) in pairwise(route.points):
            if min(y0, y1) < frame.bottom and max(y0, y1) > frame.bottom - TITLE - PAD:
                near = (frame.bottom - TITLE / 2 - y0) / (y1 - y0)
                x = x0 + (x1 - x0) * near * near * (3 - 2 * near)
                hits[True] += frame.left - 3 < x < frame.left + wide
                hits[False] += frame.right - wide < x < frame.right + 3
    return hits[True] < hits[False]
