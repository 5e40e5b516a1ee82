"""Standing: how a fact about a graph is known."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Standing(enum.Enum):
    """From what is certain to what was only taken for granted."""

    DECLARED = "declared"
    STRUCTURAL = "structural"
    PROBED = "probed"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Assumption:
    """One fact that a program relies on: of which node it is, what it says, and how that is known."""

    node: str
    claim: str
    standing: Standing

    def __str__(self) -> str:
        return f"{self.node}: {self.claim} ({self.standing.value})"
