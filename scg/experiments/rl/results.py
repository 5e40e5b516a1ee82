"""What runs came to: episodes to solve or reward reached, as a Markdown table with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.experiments.rl.tasks import Task
from scg.experiments.rl.training import History, when_solved
from scg.experiments.toy.training import standard_error
from scg.markdown import table


@dataclass(frozen=True, eq=False)
class Curves:
    """The histories of all runs under one policy, those trained in one program together."""

    policy: str
    histories: tuple[History, ...]

    def reached(self, window: int) -> Tensor:
        """Return the mean reward of every run over its last updates, [run]."""
        return torch.cat([history.reward[-window:].mean(0) for history in self.histories])

    def solving(self, task: Task) -> Tensor:
        """Return how many episodes every run took to be solved, NaN where it was not."""
        assert task.solved is not None
        found = []
        for history in self.histories:
            updates = when_solved(history.reward, task.window, task.solved)
            so_far = history.episodes.cumsum(0)
            last = so_far[(updates.nan_to_num(1) - 1).long(), torch.arange(len(updates))]
            found.append(torch.where(updates.isfinite(), last, updates))
        return torch.cat(found)

    def played(self) -> Tensor:
        """Return how many episodes every run had."""
        return torch.cat([history.episodes.sum(0) for history in self.histories])


def results(curves: Sequence[Curves], task: Task) -> str:
    """Return the table; a run that was not solved counts with all of its episodes, and has a mark."""
    first = curves[0].policy
    compared = (f"less {first}", "std. error")
    if task.solved is None:
        own: tuple[str, ...] = ("episodes", "reward", "std. error", *compared)
    else:
        own = ("solved", "episodes to solve", "std. error", *compared, "reward", "std. error")
    titles = ("policy", *own, "env. steps", "cpu seconds")
    rows = [_row(one, curves[0], task) for one in curves]
    return table(titles, "<" + ">" * (len(titles) - 1), rows)


def _row(one: Curves, first: Curves, task: Task) -> tuple[str, ...]:
    steps = sum(float(history.steps.sum()) for history in one.histories)
    costs = (f"{steps:.0f}", f"{sum(float(history.seconds[-1]) for history in one.histories):.0f}")
    reward = one.reached(task.window)
    if task.solved is None:
        difference = _difference(one, first, reward, first.reached(task.window), 1)
        return (one.policy, f"{float(one.played().mean()):.0f}", *_mean(reward, 1), *difference, *costs)
    found = one.solving(task)
    needed, others = _counted(one, task), _counted(first, task)
    solved = int(found.isfinite().sum())
    mean, error = _mean(needed, 0)
    mark = "" if solved == len(found) else "> "
    difference = _difference(one, first, needed, others, 0)
    how = (f"{solved} of {len(found)}", mark + mean, error)
    return one.policy, *how, *difference, *_mean(reward, 1), *costs


def _counted(one: Curves, task: Task) -> Tensor:
    """Return the episodes to solve of every run, all of its episodes where it was not solved."""
    found = one.solving(task)
    return torch.where(found.isfinite(), found, one.played())


def _difference(one: Curves, first: Curves, found: Tensor, other: Tensor, digits: int) -> tuple[str, str]:
    """Return the mean difference to the first policy over the runs that both have, and its standard error."""
    if one is first:
        return "", ""
    both = min(len(found), len(other))
    return _mean(found[:both] - other[:both], digits, sign="+")


def _mean(values: Tensor, digits: int, *, sign: str = "") -> tuple[str, str]:
    mean, error = float(values.double().mean()), float(standard_error(values.double()))
    return f"{mean:{sign}.{digits}f}", f"{error:.{digits}f}"
