"""Titles: what the functions of a written program are called, and what is said of them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Title(NamedTuple):
    """What a part of the program is called, and what is said of it.

    One that ``is_general`` calls what it takes by names of its own, not by those around it.
    """

    name: str
    doc: str
    is_general: bool = False


def law_title(label: str) -> Title:
    """Return the title of what a law computes."""
    family, what = re.split(r"_(?=draw|standard|log_prob|relaxed|replay|\w+$)", label, maxsplit=1)
    name = re.sub(r"\W+", "_", family.lower()).strip("_")
    family = family.partition("(")[0]
    said = {
        "draw": f"Return what a {family} draws from its noise.",
        "draw_standard": f"Return what a {family} draws from noise that is added to its location.",
        "standard": f"Return what is added to the location of a {family}.",
        "log_prob": f"Return log p of a {family}, summed over the event.",
        "relaxed": f"Return a {family} relaxed at a temperature.",
    }
    return Title(f"{name}_{what}", said.get(what, f"Return the {what} of a {family}."))
