"""What was found on all graphs: a page of Markdown tables, and every number as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from scg.comparison.comparison import STANDARD, Comparison
from scg.experiments.estimators.problems import PROBLEMS

COLUMNS = (
    "graph estimator biased evaluations variance seconds bias bias_error bias_is_seen".split()
    + "variance_seconds variance_evaluations".split()
)
LEGEND = (
    f"Time and evaluations are relative to {STANDARD}, the least of what draws is bold; a star marks what is "
    "biased, by its own account or as was seen. Bias is relative to the gradient, 0 where chance explains it."
)


def page(found: Mapping[str, Comparison]) -> str:
    """Return a table for each graph, and below it what was refused."""
    return "\n\n".join([*(_part(name, own) for name, own in found.items()), LEGEND])


def _part(name: str, found: Comparison) -> str:
    told = f"### {name}: {PROBLEMS[name].summary}\n\nHeld against {found.reference}."
    reasons = f"Refused:\n\n{found.reasons()}" if found.refused else ""
    return "\n\n".join(part for part in (told, found.table(), reasons) if part)


def values(found: Mapping[str, Comparison]) -> str:
    """Return every row of every graph as comma-separated values, with a first line of names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for graph, own in found.items():
        for row in own.rows:
            numbers = (row.evaluations, row.variance, row.seconds, row.bias, row.error)
            work = (own.relative(row, "seconds"), own.relative(row, "evaluations"))
            writer.writerow((graph, row.name, row.is_declared, *numbers, row.is_seen, *work))
    return text.getvalue()
