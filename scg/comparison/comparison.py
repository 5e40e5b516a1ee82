"""The comparison: what was measured of every policy on a graph, and its table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from scg.markdown import table

STANDARD = "leave-one-out of 2"
"""The row that others are relative to: the score function with the other of two replicates as a baseline."""
By = Literal["evaluations", "seconds"]
TITLES = (
    "estimator",
    "bias",
    "evaluations",
    "variance",
    "ms a run",
    "variance x time",
    "variance x evaluations",
)


@dataclass(frozen=True)
class Row:
    """What was measured of one run of a policy.

    ``evaluations`` counts those of the part of the graph below each node, replicates included. ``variance``
    is the sum over the entries of the gradient, and ``seconds`` are of the processor. ``bias`` is the length
    of mean - reference over that of the reference, less what chance adds to it, and ``error`` that of the
    standard errors over the same. The bias ``is_seen`` where chance does not explain it, and ``is_declared``
    where the estimators say themselves that they are biased.
    """

    name: str
    evaluations: int
    variance: float
    seconds: float
    bias: float
    error: float
    is_seen: bool
    is_declared: bool

    @property
    def is_right(self) -> bool:
        """Whether no bias is declared or seen."""
        return not self.is_seen and not self.is_declared

    def work(self, by: By) -> float:
        """Return variance times what a run costs: what an estimate of a given precision takes."""
        return self.variance * (self.evaluations if by == "evaluations" else self.seconds)


@dataclass(frozen=True)
class Comparison:
    """What ``scg.compare`` found: ``rows``, the least work first, and why policies were ``refused``.

    ``reference`` says what means were held against, ``draws`` how many runs they are of, and ``steps``
    how many came before for what estimators learn. A row is found by its ``name``. ``str()`` is a table in
    Markdown.
    """

    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    reference: str
    draws: int
    steps: int

    def __getitem__(self, name: str) -> Row:
        """Return the row of a policy."""
        return next(row for row in self.rows if row.name == name)

    def relative(self, row: Row, by: By) -> float:
        """Return the work of a ``row``, counted ``by`` evaluations or seconds, over that of the standard."""
        standard = next((own.work(by) for own in self.rows if own.name == STANDARD), 0.0)
        return row.work(by) / standard if standard else math.nan

    def best(self, by: By) -> Row | None:
        """Return the row with the least work, of those that are right and vary at all."""
        able = [row for row in self.rows if row.is_right and row.variance > 0]
        return min(able, key=lambda row: row.work(by), default=None)

    def __str__(self) -> str:
        """The table, and the reasons of what was refused."""
        return "\n\n".join(part for part in (self.table(), self.reasons()) if part)

    def table(self) -> str:
        """Return the table alone: the least work in bold, what is biased with a mark and last."""
        rows = [
            (
                row.name if row.is_right else f"{row.name}*",
                shown_bias(row),
                str(row.evaluations),
                f"{row.variance:.2e}" if row.variance else "0",
                f"{1e3 * row.seconds:.2f}",
                self._shown(row, "seconds"),
                self._shown(row, "evaluations"),
            )
            for row in self.rows
        ]
        return table(TITLES, "<>>>>>>", rows)

    def reasons(self) -> str:
        """Return why policies were refused, in short, those with one reason together."""
        found: dict[str, list[str]] = {}
        for name, reason in self.refused.items():
            found.setdefault(_short(reason), []).append(name)
        return "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in found.items())

    def _shown(self, row: Row, by: By) -> str:
        share = self.relative(row, by)
        text = "exact" if not row.variance and row.is_right else f"{share:.3g}"
        return f"**{text}**" if row is self.best(by) else text


def _short(reason: str) -> str:
    """Return the reason of the first node that an error names, without what to write instead."""
    line = reason.partition("\n")[0]
    return (line.partition("': ")[2] or line).partition(". Use ")[0]


def shown_bias(row: Row) -> str:
    """Return a bias with its standard error: 0 where chance explains it, a dash where nothing is known."""
    if math.isnan(row.bias):
        return "-"
    value = f"{row.bias:.3f}" if row.is_seen else "0"
    return value if row.error < 5e-5 else f"{value} ± {row.error:.2g}"
