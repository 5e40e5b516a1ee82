"""The verdict on a program: what was found of its gradient, with intervals, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from scg.markdown import table

Word = Literal["unbiased", "biased", "undecided"]


@dataclass(frozen=True)
class Interval:
    """An estimate, and the ends of an interval that holds the truth with probability 1 - alpha."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """The estimate and half the width of the interval."""
        return f"{self.value:.4g} ± {(self.high - self.low) / 2:.2g}"


@dataclass(frozen=True)
class Bias:
    """What was found of one parameter: the length of its reference, and the entry that is furthest off."""

    reference: float
    entry: tuple[int, ...]
    bias: Interval
    p_value: float


@dataclass(frozen=True)
class Verification:
    """What ``scg.verify`` found.

    ``verdict`` is "biased"; "unbiased", where a bias of the resolution asked for would have been seen; or
    "undecided". ``p_value`` is that of all means being right. ``scale`` is the mean along the ``reference``,
    over its length: 1 if unbiased, and None where the reference is 0 or not told from 0. ``parameters`` has,
    by name, the entry that is furthest off. ``detectable`` is the bias along the reference, relative to it,
    that ``draws`` runs would have shown. ``reason`` says why it ended. ``declared`` names the nodes whose
    estimators say themselves that they are biased, each with its estimator.
    """

    verdict: Word
    p_value: float
    scale: Interval | None
    parameters: Mapping[str, Bias]
    detectable: float
    draws: int
    reference: str
    reason: str
    declared: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Whether the gradient is unbiased, as far as was asked."""
        return self.verdict == "unbiased"

    def __str__(self) -> str:
        """The verdict in words, and a table of the parameters."""
        rows = [
            (name, f"{found.reference:.3g}", str(list(found.entry)), str(found.bias), f"{found.p_value:.2g}")
            for name, found in self.parameters.items()
        ]
        shown = table(("parameter", "length", "furthest entry", "bias there", "p"), "<>>>>", rows)
        scale = "" if self.scale is None else f"; the mean is {self.scale} of it along it"
        told = ", ".join(f"'{how}' at '{name}'" for name, how in self.declared.items())
        declared = f"\nbiased as declared: {told}" if told else ""
        return (
            f"{self.verdict}: {self.reason}\nheld against {self.reference}, over {self.draws:,} draws{scale}"
            f"{declared}\n\n{shown}"
        )
