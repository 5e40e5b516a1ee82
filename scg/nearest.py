"""The nearest of known names: what an error says of one that is misspelt."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def named_nearest(what: str, name: str, known: Iterable[str]) -> str:
    """Say that there is no ``what`` of a ``name``, which of those that are ``known`` is nearest, and all.

    >>> named_nearest("key", "raet", ["rate", "seed"])
    "there is no key 'raet': 'rate' is meant? There are rate, seed"
    """
    several = list(known)
    nearest = get_close_matches(name, several, 1)
    meant = f": '{nearest[0]}' is meant? There" if nearest else "; there"
    return f"there is no {what} '{name}'{meant} are {', '.join(several)}"
