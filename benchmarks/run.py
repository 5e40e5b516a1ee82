"""One contest, from its contenders to figures."""

from __future__ import annotations

import operator
from dataclasses import replace

import torch

from benchmarks.contest import Contest
from benchmarks.figures import Figure
from benchmarks.timing import Budget, Spread, Tell, Timed, compared, first_line, race


def run(contest: Contest, budget: Budget, tell: Tell, device: str = "cpu") -> list[Figure]:
    """Race the contenders, then measure what else there is to know of them."""
    torch.compiler.reset()
    torch.manual_seed(1)
    timed = race(contest.contenders, budget, lambda what: tell(f"{contest.title}: {what}"), device)
    figures = []
    for name, result in timed.items():
        tell(f"{contest.title}: measuring {name}")
        figures.append(figure(contest, name, result, timed.get(contest.against)))
    return figures


def figure(contest: Contest, name: str, mine: Timed, theirs: Timed | None) -> Figure:
    """The figure of one contender."""
    found = Figure(contest.problem, contest.case, contest.size, name, error=mine.error)
    if mine.job is None:
        return found
    seconds = Spread.of([*mine.seconds])
    found = replace(found, seconds=seconds, rounds=len(mine.seconds))
    if theirs is not None and theirs.seconds:
        ratio, over = (compared(mine, theirs, how) for how in (operator.truediv, operator.sub))
        found = replace(found, ratio=ratio, over=over)
    try:
        return replace(found, facts=contest.measure(name, mine.job, seconds.median))
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
        return replace(found, error=f"not measured: {first_line(error)}")
