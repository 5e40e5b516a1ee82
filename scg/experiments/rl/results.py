"""What runs came to: episodes to solve or reward reached, as a Markdown table with paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.experiments.means import shown
from scg.experiments.rl.tasks import Task
from scg.experiments.rl.training import History, when_solved
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
    reward = shown(one.reached(task.window), 1)
    if task.solved is None:
        difference = _difference(one, first, _rewards(one, first, task), 1)
        return (one.policy, f"{float(one.played().mean()):.0f}", *reward, *difference, *costs)
    found = one.solving(task)
    solved = int(found.isfinite().sum())
    mean, error = shown(torch.where(found.isfinite(), found, one.played()), 0)
    mark = "" if solved == len(found) else "> "
    difference = _difference(one, first, _episodes(one, first, task), 0)
    return one.policy, f"{solved} of {len(found)}", mark + mean, error, *difference, *reward, *costs


def _episodes(one: Curves, first: Curves, task: Task) -> Tensor:
    """Return how many more episodes runs took than their pairs, as far as an unsolved one of both went."""
    solving = [curves.solving(task) for curves in (one, first)]
    both = min(map(len, solving))
    ends = [
        torch.where(found.isfinite(), torch.inf, curves.played())[:both]
        for found, curves in zip(solving, (one, first), strict=True)
    ]
    horizon = torch.minimum(*ends)
    needed = [torch.minimum(found[:both].nan_to_num(torch.inf), horizon) for found in solving]
    return needed[0] - needed[1]


def _rewards(one: Curves, first: Curves, task: Task) -> Tensor:
    """Return how much more runs reached than their pairs after as many updates as both had."""
    found = []
    for history, other in zip(one.histories, first.histories, strict=False):
        end = min(len(history.reward), len(other.reward))
        last = slice(max(end - task.window, 0), end)
        found.append(history.reward[last].mean(0) - other.reward[last].mean(0))
    return torch.cat(found)


def _difference(one: Curves, first: Curves, found: Tensor, digits: int) -> tuple[str, str]:
    return ("", "") if one is first else shown(found, digits, sign="+")
