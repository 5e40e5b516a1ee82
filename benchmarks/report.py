"""The report: a Markdown table for every problem, a column for every contender, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.contest import (
    BY_HAND,
    BY_HAND_COMPILED,
    BY_HAND_POOLED,
    BY_HAND_STACKED,
    PYRO,
    SCG,
    SCG_COMPILED,
    STORCHASTIC,
)
from benchmarks.figures import Figure, Results, of_problem
from benchmarks.growth import curves, exponent
from scg.markdown import table

ORDER = (SCG, SCG_COMPILED, BY_HAND, BY_HAND_COMPILED, BY_HAND_POOLED, BY_HAND_STACKED, STORCHASTIC, PYRO)


def report(results: Results) -> str:
    """Return the whole report."""
    parts = [f"# Benchmarks\n\n{described(results)}"]
    for problem, figures in of_problem(results.figures).items():
        parts.append(f"## {problem}\n\n{facts(figures) if any(f.facts for f in figures) else times(figures)}")
        parts.extend(faults(figures))
    growing = growth(results.figures)
    if growing:
        parts.append(f"## Growth\n\nExponents of time over size: slopes of logarithms.\n\n{growing}")
    return "\n\n".join(parts) + "\n"


def described(results: Results) -> str:
    """Say on what machine, and what the numbers are."""
    known = results.machine
    where = f"{known['cpu']}, {known['cores']} cores" + (f", {known['gpu']}" if known["gpu"] else "")
    threads = f"{known['threads']} thread{'s' * (known['threads'] > 1)}"
    return (
        f"{where}; torch {known['torch']}, Python {known['python']}, {threads}; {known['date']}.\n\n"
        "Median milliseconds of a step, forward and backward, and in brackets the median ratio to the step "
        "by hand in the same rounds. Contenders take turns in random order in one process."
    )


def times(figures: Sequence[Figure]) -> str:
    """A row for every case and size, a column for every contender."""
    names = list(dict.fromkeys(figure.contender for figure in figures))
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for figure in figures:
        rows.setdefault(place(figure, figures), {})[figure.contender] = cell(figure)
    titles = [*place_titles(figures), *names]
    lines = [[*where, *(row.get(name, "") for name in names)] for where, row in rows.items()]
    return table(titles, "<" + ">" * (len(titles) - 1), lines)


def facts(figures: Sequence[Figure]) -> str:
    """A row for every contender, with what is known besides the time."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.facts))
    rows = []
    for figure in figures:
        known = (number(figure.facts[name]) if name in figure.facts else "" for name in names)
        rows.append([*place(figure, figures), figure.contender, cell(figure), *known])
    places = place_titles(figures)
    titles = [*places, "contender", "ms", *names]
    return table(titles, "<" + ">" * (len(places) - 1) + "<" + ">" * (1 + len(names)), rows)


def place(figure: Figure, figures: Sequence[Figure]) -> tuple[str, ...]:
    """The case, and the size where some figure has one."""
    size = "" if figure.size is None else f"{figure.size:,}"
    return (figure.case, size)[: len(place_titles(figures))]


def place_titles(figures: Sequence[Figure]) -> tuple[str, ...]:
    """The titles of ``place``."""
    return ("case", "size") if any(figure.size is not None for figure in figures) else ("case",)


def cell(figure: Figure) -> str:
    """The time with the ratio, for the toy also what is over it, or the first words of what went wrong."""
    if figure.seconds is None:
        return (figure.error or "").partition(":")[0]
    compared = []
    if figure.ratio is not None and figure.contender != BY_HAND:
        compared.append(number(figure.ratio.median))
        if figure.problem == "toy" and figure.over is not None:
            compared.append(f"{1e6 * figure.over.median:+.0f} us")
    return number(1e3 * figure.seconds.median) + (f" ({', '.join(compared)})" if compared else "")


def number(value: float) -> str:
    """Three digits, without an exponent where that can be read.

    >>> [number(each) for each in (0.01234, 1.5, 1234.5, 0.0, 4.2e-7)]
    ['0.0123', '1.50', '1,234', '0', '4.2e-07']
    """
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e7:
        return f"{value:.1e}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"


def faults(figures: Sequence[Figure]) -> Iterator[str]:
    """What went wrong, once for each contender and case."""
    told: dict[str, list[str]] = {}
    for figure in figures:
        if figure.error is not None:
            at = figure.case if figure.size is None else f"{figure.case}, {figure.size:,}"
            told.setdefault(f"{figure.contender} {figure.error}", []).append(at)
    if told:
        yield "\n".join(f"- {what} ({'; '.join(cases)})" for what, cases in told.items())


def growth(figures: Sequence[Figure]) -> str:
    """The exponent of every curve."""
    rows = [
        (problem, case, contender, f"{exponent(curve):.2f}", f"{curve[0][0]:,} to {curve[-1][0]:,}")
        for (problem, case, contender), curve in curves(figures).items()
    ]
    return table(("problem", "case", "contender", "exponent", "sizes"), "<<<><", rows) if rows else ""
