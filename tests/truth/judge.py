"""The verdict on a program whose example hides something: is it refused, or is its gradient right?

A program is compiled on examples, then woken: its parameters and inputs take the values that show what
the examples hid. What it then leaves in ``.grad``, and its loss, are averaged over seeds and held against
the objective, which the test knows. Only the public interface is used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.stats
import torch
from torch import Tensor

import scg

FIRST, SECOND = 16, 96
"""The runs of a first look, and those, all of them fresh, that confirm what it suspects."""
SUSPECT, FALSE_ALARM = 1e-3, 6e-7
"""The chance that the first look suspects a right program, and that the second condemns it: 5 sigma."""
RESOLVED = 0.1
"""The bias, relative to the gradient, that a first look must be able to see; the second allows twice that."""
VOID = 0.02
"""A gradient below this would hide a wrong one."""

Inputs = Mapping[str, Any]


def asleep(graph: scg.Graph) -> Inputs:
    """Wake nothing: run on what is there."""
    return {}


@dataclass(frozen=True)
class Case:
    """A program, what wakes it, and the objective that it then has.

    ``wake`` moves parameters in place and returns the inputs of the runs; ``objective`` then gives the exact
    expected loss, attached to the parameters of the graph and to ``captured`` ones. ``must_work`` marks what
    is right and may not be refused, ``may_warn`` what a warning is enough for. ``slack`` is the relative
    error of the objective's own gradient, ``effort`` a factor of the number of runs.
    """

    make: Callable[[], scg.Graph]
    objective: Callable[[scg.Graph], Tensor]
    wake: Callable[[scg.Graph], Inputs] = asleep
    policy: Any = "auto"
    samples: int | None = 1024
    must_work: bool = False
    may_warn: bool = False
    slack: float = 2e-3
    captured: Sequence[Tensor] = ()
    effort: int = 1


@dataclass(frozen=True)
class Verdict:
    """``kind`` is "right", "refused", "warned", "wrong", "crashed"; "void" and "unresolved" judge nothing."""

    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def right_or_refused(case: Case) -> Verdict:
    """Assert that a program is refused, unless it must work, or that its gradient is right."""
    found = verdict(case)
    allowed = {"right"} if case.must_work else {"right", "refused"}
    assert found.kind in (allowed | {"warned"} if case.may_warn else allowed), str(found)
    return found


def verdict(case: Case) -> Verdict:
    """Compile, wake, run and judge a program."""
    torch.manual_seed(0)
    stage = "declared"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            graph = case.make()
            stage = "compiled"
            program = scg.compile(graph, case.policy, samples=case.samples)
            stage = "run"
            found = _judged(case, graph, program)
        except scg.ScgError as error:
            return Verdict("refused", f"when {stage}: {error}")
        except Exception as error:  # noqa: BLE001 - a program that is judged may raise anything
            return Verdict("crashed", f"when {stage}: {type(error).__name__}: {error}")
    if found.kind == "wrong" and case.may_warn and said:
        return Verdict("warned", f"{said[0].message} ({found.detail})")
    return found


def _judged(case: Case, graph: scg.Graph, program: scg.Program) -> Verdict:
    inputs = case.wake(graph)
    leaves = [*(p for p in graph.parameters() if p.requires_grad), *case.captured]
    objective = case.objective(graph)
    parts = torch.autograd.grad(objective, leaves, allow_unused=True)
    truth = _flat(objective.detach(), parts, leaves)
    norm = float(truth[1:].norm())
    if norm < VOID:
        return Verdict("void", f"the gradient is {norm:.2g}")
    size = torch.full_like(truth, norm)
    size[0] = 2 * max(abs(float(objective)), norm)
    first = _draws(program, inputs, leaves, range(FIRST * case.effort))
    deviation, bound, _ = _compared(first, truth, SUSPECT)
    if bool(((deviation <= bound + case.slack * size) & (bound <= RESOLVED * size)).all()):
        return Verdict("right")
    fresh = range(FIRST * case.effort, (FIRST + SECOND) * case.effort)
    later = _draws(program, inputs, leaves, fresh)
    deviation, bound, error = _compared(later, truth, FALSE_ALARM)
    shown = f"loss and gradient {_shown(later.mean(0))} +- {_shown(error)} for {_shown(truth)}"
    if not bool((deviation <= bound + case.slack * size).all()):
        return Verdict("wrong", shown)
    return Verdict("right" if bool((bound <= 2 * RESOLVED * size).all()) else "unresolved", shown)


def _compared(draws: Tensor, truth: Tensor, level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the deviation of a mean from the truth, the bound on it at a level, and its standard error."""
    count = len(draws)
    error = draws.std(0) / math.sqrt(count)
    quantile = float(scipy.stats.t.ppf(1 - level / 2, count - 1))
    return (draws.mean(0) - truth).abs(), quantile * error, error


def _draws(program: scg.Program, inputs: Inputs, leaves: Sequence[Tensor], seeds: range) -> Tensor:
    """Return the loss and the gradient that each seed gives, [seeds, entries]."""
    drawn = []
    for seed in seeds:
        for leaf in [*program.parameters(), *leaves]:
            leaf.grad = None
        loss = program(seed=seed, **inputs).loss
        if loss.requires_grad:
            loss.backward()
        drawn.append(_flat(loss.detach(), [leaf.grad for leaf in leaves], leaves))
    return torch.stack(drawn)


def _flat(loss: Tensor, parts: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> Tensor:
    """Return a loss and its gradient as one vector; what has no gradient has zeros."""
    whole = [
        torch.zeros_like(leaf) if part is None else part for part, leaf in zip(parts, leaves, strict=True)
    ]
    return torch.cat([part.detach().double().flatten() for part in (loss, *whole)])


def _shown(values: Tensor) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values.tolist()) + ")"
