"""The shape and the size of nodes."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from scg.draw.shapes import Glyph, font_size, glyphs, text_width
from scg.errors import GraphError

from . import graphs

MEASURE: Any = text_to_path.get_text_width_height_descent


def measured(text: str, size: float) -> tuple[float, float]:
    """Return the width and the height of a line in points."""
    width, height, _ = MEASURE(text, FontProperties(family="DejaVu Sans", size=size), ismath=False)
    return width, height


def fits(glyph: Glyph) -> bool:
    sizes = [measured(text, font_size(glyph.shape, line)) for line, text in enumerate(glyph.lines)]
    width, height = max(size[0] for size in sizes), sum(size[1] for size in sizes)
    if glyph.shape == "circle":
        return (width / glyph.width) ** 2 + (height / glyph.height) ** 2 < 1
    return width < glyph.width and height < glyph.height


def test_shapes_follow_the_paper() -> None:
    drawn = glyphs(graphs.vae())
    expected = {"x": "text", "prior": "text", "b": "circle", "logits": "square", "nelbo": "cost"}
    expected |= {"log_prob_1": "square", "sub_1": "operator"}
    assert {name: drawn[name].shape for name in expected} == expected


@pytest.mark.parametrize(
    "name", ["b", "WWWWMMMM", "hidden_state_of_the_decoder", "illicit", "x0", "θ", "Q_value"]
)
@pytest.mark.parametrize("remark", ["", "REBAR(temperature=0.5)"])
def test_letters_fit_their_shape(name: str, remark: str) -> None:
    for record in (graphs.sample(name), graphs.det(name), graphs.cost(name)):
        glyph = glyphs(graphs.ir(record), {name: remark})[name]
        assert glyph.lines == ((name, remark) if remark else (name,))
        assert fits(glyph), glyph


@pytest.mark.parametrize("letter", [chr(code) for code in range(33, 127)])
def test_width_is_bounded_letter_by_letter(letter: str) -> None:
    width = measured(letter * 20, 10.0)[0]
    assert width <= text_width(letter * 20, 10.0) < width * 1.6 + 20


def test_constants_are_not_drawn() -> None:
    assert "constant" not in glyphs(graphs.random_graph(0))


def test_labels_of_strangers_are_refused() -> None:
    with pytest.raises(GraphError, match=r"\['q'\]"):
        glyphs(graphs.vae(), {"q": "score"})
