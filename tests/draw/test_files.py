"""The four formats are well formed, complete and reproducible."""

from __future__ import annotations

import builtins
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from scg.draw import dot, mermaid, svg, write
from scg.errors import GraphError

from . import graphs

EVERY = {
    **graphs.schulman(),
    "vae": graphs.vae(),
    "crossed": graphs.crossed(),
    "random": graphs.random_graph(1),
}
SUFFIXES = [".svg", ".png", ".mmd", ".mermaid", ".dot", ".gv"]
pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("name", EVERY)
def test_svg_is_xml_whose_letters_are_text(name: str) -> None:
    graph = EVERY[name]
    root = ElementTree.fromstring(svg(graph))
    words = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert words >= {node for node in graph if node != "constant"}


@pytest.mark.parametrize("name", EVERY)
def test_mermaid_has_every_node_edge_and_plate(name: str) -> None:
    graph = EVERY[name]
    text = mermaid(graph)
    nodes = [node for node in graph if node != "constant"]
    assert text.startswith("flowchart TB\n")
    assert len(re.findall(r'^ +n\d+[\[(].*"[\])]', text, re.M)) == len(nodes)
    assert text.count(" --> ") == sum("constant" not in edge for edge in graph.dag.edges)
    assert len(re.findall(r"^ +subgraph ", text, re.M)) == len(re.findall(r"^ +end$", text, re.M))
    assert ("subgraph" in text) == bool(graph.plates)


@pytest.mark.parametrize("name", EVERY)
def test_dot_has_every_node_edge_and_plate(name: str) -> None:
    graph = EVERY[name]
    text = dot(graph)
    assert text.startswith("digraph scg {\n")
    assert text.count("{") == text.count("}")
    assert text.count("[label=") == sum(node != "constant" for node in graph)
    assert text.count(" -> ") == sum("constant" not in edge for edge in graph.dag.edges)
    assert ('subgraph "cluster_' in text) == bool(graph.plates)


def test_text_formats_put_nodes_into_their_plates() -> None:
    lines = [line.strip() for line in dot(graphs.crossed()).splitlines()]
    depth, around = 0, {}
    for line in lines:
        depth += line.startswith("subgraph") - (line == "}")
        if found := re.match(r'"(\w+)" \[', line):
            around[found[1]] = depth
    assert around == {"mu": 0, "user": 1, "item": 1, "rating": 2, "error": 2, "loss": 2}
    assert depth == -1


def test_labels_stand_below_names() -> None:
    labels = {"b": 'Score("a"), <2'}
    assert "b<br/>Score(#quot;a#quot;), #lt;2" in mermaid(graphs.vae(), labels=labels)
    assert '[label="b\\nScore(\\"a\\"), <2"' in dot(graphs.vae(), labels=labels)
    assert 'Score("a"), &lt;2' in svg(graphs.vae(), labels=labels)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_the_same_twice(suffix: str, tmp_path: Path) -> None:
    one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
    for path in (one, two):
        write(
            graphs.random_graph(2), path, labels={"h0": "score"} if "h0" in graphs.random_graph(2) else None
        )
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_size > 500


def test_png_is_png(tmp_path: Path) -> None:
    write(graphs.vae(), str(tmp_path / "vae.PNG"))
    assert (tmp_path / "vae.PNG").read_bytes().startswith(b"\x89PNG\r\n")


def test_long_graphs_get_fewer_pixels(tmp_path: Path) -> None:
    write(graphs.chain(400), tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["graph.pdf", "graph"])
def test_other_suffixes_are_refused_with_the_four(name: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"write \.svg, \.png, \.mmd or \.dot"):
        write(graphs.vae(), tmp_path / name)


def test_huge_pictures_are_refused_and_huge_texts_are_not() -> None:
    graph = graphs.chain(3000)
    with pytest.raises(GraphError, match=r"\.dot or \.mmd"):
        svg(graph)
    assert mermaid(graph).count(" --> ") == len(graph.dag.edges)


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    svg(graphs.vae())
    assert dict(mpl.rcParams) == before


def test_the_style_of_the_caller_does_not_matter() -> None:
    plain = svg(graphs.vae())
    with mpl.rc_context(
        {"font.family": "serif", "svg.fonttype": "path", "savefig.bbox": "tight", "lines.linewidth": 9}
    ):
        assert svg(graphs.vae()) == plain


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = builtins.__import__

    def missing(name: str, scope: Mapping[str, Any] | None = None, *rest: Any) -> Any:
        if name.startswith(("matplotlib", "scg.draw.picture")):
            raise ImportError(name)
        return honest(name, scope, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(GraphError, match=r'pip install "scg\[draw\]"'):
        svg(graphs.vae())
