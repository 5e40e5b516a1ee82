"""The proof: its steps, how far each is known, and a counterexample where one breaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import sympy as sp
from torch import Tensor

Standing = Literal["proved", "certified", "assumed", "failed"]
STRENGTH: tuple[Standing, ...] = ("failed", "assumed", "certified", "proved")
"""Standings from the weakest to the strongest."""


@dataclass(frozen=True)
class Step:
    """A ``claim``, ``about`` a node or the program, its ``standing``, and ``how`` it is known.

    ``identity`` is what was shown, where that is one formula.
    """

    claim: str
    standing: Standing
    how: str
    about: str = "the program"
    identity: sp.Expr | None = None

    def __str__(self) -> str:
        """One line."""
        return f"[{self.standing}] {self.about}: {self.claim} ({self.how})"


@dataclass(frozen=True, eq=False)
class Counterexample:
    """Parameters at which the mean gradient of the program is not the gradient of the objective.

    ``emitted`` and ``exact`` are the entry ``index`` of ``parameter``, of which ``node`` is the culprit as
    far as that is known. ``parameters`` has all, by name, and can be loaded into the program.
    """

    node: str | None
    parameter: str
    index: tuple[int, ...]
    parameters: Mapping[str, Tensor]
    emitted: float
    exact: float

    def __str__(self) -> str:
        """Both numbers, and where they were found."""
        at = ", ".join(f"{name} = {_shown(value)}" for name, value in self.parameters.items())
        place = f"{self.parameter}{list(self.index) if self.index else ''}"
        culprit = f", by the estimator of '{self.node}'" if self.node else ""
        return (
            f"the mean gradient in {place} is {self.emitted:.10g}, "
            f"and that of the objective {self.exact:.10g}{culprit}, at {at}"
        )


@dataclass(frozen=True, eq=False)
class Proof:
    """Whether the mean gradient of a program is the gradient of its objective, and how that is known.

    ``standing`` is that of the weakest of the ``steps``: "proved" for all parameters in ``domain``;
    "certified", which is measured, within a tolerance at some points; "assumed" in part; or "failed", with a
    ``counterexample``. ``reasons`` say why stronger means were not within reach.
    """

    steps: tuple[Step, ...]
    domain: tuple[str, ...] = ()
    counterexample: Counterexample | None = None
    reasons: tuple[str, ...] = ()

    @property
    def standing(self) -> Standing:
        """The standing of the weakest step."""
        return min((step.standing for step in self.steps), key=STRENGTH.index)

    def __bool__(self) -> bool:
        """Whether nothing was found to be wrong, and nothing merely assumed."""
        return self.standing in ("proved", "certified")

    def __str__(self) -> str:
        """Every step in a line."""
        lines = [f"{self.standing}: {self._said()}", *(f"  {step}" for step in self.steps)]
        if self.domain:
            lines.append(f"  where {', '.join(self.domain)}")
        lines += [f"  not within reach: {reason}" for reason in self.reasons]
        if self.counterexample is not None:
            lines.append(f"  counterexample: {self.counterexample}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        """Return the same as text."""
        return str(self)

    def _said(self) -> str:
        if self.standing == "failed":
            return "the mean gradient of the program is not the gradient of its objective"
        told = "the mean gradient of the program is the gradient of its objective"
        return {
            "proved": f"{told} on these inputs, for all parameters",
            "certified": f"{told}, as far as was measured",
            "assumed": f"that {told} is assumed in part",
        }[self.standing]

    def latex(self) -> str:
        r"""Return the proof as LaTeX: the claim, and a list of the steps."""
        lines = [
            r"\textbf{Claim.} " + _text(self._said()) + r" (\emph{" + self.standing + r"}).",
            r"\begin{enumerate}",
        ]
        for step in self.steps:
            told = f"{step.about}: {step.claim} ({step.how})."
            lines.append(rf"\item \emph{{{step.standing}}}, {_text(told)}")
            if step.identity is not None:
                lines.append(r"\[ " + sp.latex(step.identity) + r" \]")
        lines.append(r"\end{enumerate}")
        if self.domain:
            lines.append("Where " + _text(", ".join(self.domain)) + ".")
        if self.counterexample is not None:
            lines.append(r"\textbf{Counterexample.} " + _text(str(self.counterexample)) + ".")
        return "\n".join(lines)


def _shown(value: Tensor) -> str:
    return (
        f"{value.item():.6g}"
        if value.dim() == 0
        else str([float(f"{v:.6g}") for v in value.reshape(-1).tolist()])
    )


def _text(text: str) -> str:
    for sign in "\\&%$#_{}~^":
        text = text.replace(
            sign, {"\\": r"\textbackslash ", "~": r"\~{}", "^": r"\^{}"}.get(sign, "\\" + sign)
        )
    return text
