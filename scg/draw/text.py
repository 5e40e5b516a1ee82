"""Text that other programs draw: Mermaid flowcharts and DOT digraphs, with plates as subgraphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from scg.draw.nesting import Home, frames, homes
from scg.draw.shapes import Glyph, glyphs, plate_title
from scg.nodes.ir import IR

_MERMAID = {"text": '["{}"]:::text', "circle": '(("{}"))', "cost": '("{}"):::cost'}
_DOT = {
    "text": "shape=plaintext",
    "circle": "shape=ellipse",
    "cost": 'shape=box, style="rounded,filled", fillcolor="#f6e8cd"',
    "operator": "shape=box, fontsize=8, height=0.25, width=0.25",
}


def mermaid(ir: IR, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the graph as a Mermaid flowchart.

    Nodes are called n0, n1, ... as Mermaid reserves words such as ``end``.
    """
    drawn = glyphs(ir, labels)
    key = {name: f"n{index}" for index, name in enumerate(drawn)}

    def node(glyph: Glyph) -> str:
        words = "<br/>".join(_entities(line) for line in glyph.lines)
        return key[glyph.name] + _MERMAID.get(glyph.shape, '["{}"]').format(words)

    def opening(index: int, title: str) -> str:
        return f'subgraph p{index}["{_entities(title)}"]'

    lines = ["flowchart TB", *_nested(ir, drawn, node, opening, "end")]
    lines += [f"  {key[a]} --> {key[b]}" for a, b in ir.dag.edges if a in key and b in key]
    lines += ["  classDef text fill:none,stroke:none", "  classDef cost fill:#f6e8cd"]
    return "\n".join(lines) + "\n"


def dot(ir: IR, *, labels: Mapping[str, str] | None = None) -> str:
    """Return the graph in the DOT language of Graphviz."""
    drawn = glyphs(ir, labels)

    def node(glyph: Glyph) -> str:
        label = "\\n".join(_escaped(line) for line in glyph.lines)
        return f'"{_escaped(glyph.name)}" [label="{label}", {_DOT.get(glyph.shape, "shape=box")}];'

    def opening(index: int, title: str) -> str:
        look = "labeljust=r; labelloc=b; style=rounded;"
        return f'subgraph "cluster_{index}" {{ label="{_escaped(title)}"; {look}'

    lines = ["digraph scg {", *_nested(ir, drawn, node, opening, "}")]
    edges = [(a, b) for a, b in ir.dag.edges if a in drawn and b in drawn]
    lines += [f'  "{_escaped(a)}" -> "{_escaped(b)}";' for a, b in edges]
    return "\n".join([*lines, "}"]) + "\n"


def _nested(
    ir: IR,
    drawn: Mapping[str, Glyph],
    node: Callable[[Glyph], str],
    opening: Callable[[int, str], str],
    closing: str,
) -> Iterator[str]:
    """Yield the nodes, every frame's in a block of its own, blocks nested as frames are."""
    places = homes(ir, drawn)
    inside: Home = ()
    members: dict[Home, list[Glyph]] = {frame: [] for frame in [(), *sorted(frames(places.values()))]}
    for name, home in places.items():
        members[home].append(drawn[name])
    for index, (frame, held) in enumerate(members.items()):
        for depth in range(len(inside), max(len(frame) - 1, 0), -1):
            yield "  " * depth + closing
        if frame:
            yield "  " * len(frame) + opening(index, plate_title(ir, frame[-1]))
        yield from ("  " * (len(frame) + 1) + node(glyph) for glyph in held)
        inside = frame
    for depth in range(len(inside), 0, -1):
        yield "  " * depth + closing


def _entities(text: str) -> str:
    codes = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;"}
    return "".join(codes.get(letter, letter) for letter in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
