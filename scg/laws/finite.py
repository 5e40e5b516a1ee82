"""What laws of finitely many values have in common: one parameter, uniform noise, atoms."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

from scg.laws.law import Law, Noise


@dataclass(frozen=True)
class Finite(Law):
    """A law whose ``support`` lists every value; ``given`` names its parameter."""

    given: Literal["probs", "logits"]

    @property
    @abstractmethod
    def family(self) -> str:
        """Readable name."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """``("probs",)`` or ``("logits",)``."""
        return (self.given,)

    @property
    def noise(self) -> Noise:
        """Uniform."""
        return "uniform"

    @property
    def finite(self) -> bool:
        """Always."""
        return True

    @property
    def discrete(self) -> bool:
        """Always: atoms."""
        return True
