"""One strategy that draws a program with a defect, an example that hides it, and a run that shows it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from tests.truth.defects_of_functions import a_hidden_draw, a_jump, a_static
from tests.truth.defects_of_plates import a_crossing, a_mixing, a_place, a_sleeper
from tests.truth.sources import Defect, Draw

SEEN: Counter[str] = Counter()
"""How many programs of each class were judged, and how many of them were right or refused."""

KINDS: dict[str, Callable[[Draw], Defect]] = {
    "jump": a_jump,
    "crossing": a_crossing,
    "sleeper": a_sleeper,
    "mixing": a_mixing,
    "place": a_place,
    "hidden": a_hidden_draw,
    "static": a_static,
}


@st.composite
def defects(draw: Draw, kinds: Sequence[str] = tuple(KINDS)) -> Defect:
    """Draw a program with a defect of one of some classes."""
    return KINDS[draw(st.sampled_from(list(kinds)))](draw)
