"""Standing: how a fact about a graph is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Standing = Literal["declared", "structural", "probed", "assumed"]
"""Said by the user; read off the operations, whatever the values; seen at several points; only taken so."""


@dataclass(frozen=True)
class Assumption:
    """One fact that a program relies on: of which node it is, what it says, and how that is known.

    >>> print(Assumption("h", "is smooth in 'z'", "probed"))
    h: is smooth in 'z' (probed)
    """

    node: str
    claim: str
    standing: Standing

    def __str__(self) -> str:
        owner = f"{self.node}: " if self.node else ""
        return f"{owner}{self.claim} ({self.standing})"
