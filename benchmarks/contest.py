"""What is timed: contenders that do the same job, each built when its turn comes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import scg

BY_HAND, BY_HAND_COMPILED = "by hand", "by hand compiled"
BY_HAND_POOLED, BY_HAND_STACKED = "by hand pooled", "by hand stacked"
SCG, SCG_COMPILED = "scg", "scg compiled"
STORCHASTIC, PYRO, TORCHRL = "Storchastic", "Pyro", "torchrl"


@dataclass(frozen=True, eq=False)
class Job:
    """A step, forward and backward, the parameters whose ``.grad`` it leaves, and the model they train."""

    step: Callable[[], object]
    parameters: tuple[nn.Parameter, ...] = ()
    model: nn.Module | None = None

    def clear(self) -> None:
        """Forget gradients, so that every step starts alike."""
        for parameter in self.parameters:
            parameter.grad = None


Build = Callable[[], Job]
Loss = Callable[[], Tensor]


@dataclass(frozen=True, eq=False)
class Contest:
    """Contenders by name that do the same job; ratios are to ``against``, if that is one of them.

    ``size`` is what grows within a problem, None where nothing does. ``measure`` finds, for a contender, its
    job and the seconds of a step, other numbers.
    """

    problem: str
    case: str
    contenders: Mapping[str, Build]
    size: int | None = None
    against: str = BY_HAND
    measure: Callable[[str, Job, float], dict[str, float]] = lambda name, job, seconds: {}

    @property
    def title(self) -> str:
        """The problem, the case and the size in words."""
        return f"{self.problem}, {self.case}" + ("" if self.size is None else f", {self.size}")


@dataclass(frozen=True)
class Settings:
    """How much is run, and where; ``compiled`` says whether torch compiles steps as well."""

    quick: bool = False
    device: str = "cpu"
    compiled: bool = True


def entrants(
    model: nn.Module,
    program_of: Callable[[Any], scg.Program],
    by_hand: Callable[[Any], Loss],
    peers: Mapping[str, Callable[[Any], Job]],
    *,
    compiled: bool,
    inputs: Mapping[str, Tensor] | None = None,
) -> dict[str, Build]:
    """The usual contenders, each with a copy of ``model``.

    ``program_of(model)`` is the compiled graph, ``by_hand(model)`` what returns the loss, and
    ``peers[name](model)`` the step in another library.
    """
    given = dict(inputs or {})

    def own(build: Callable[[Any], Job]) -> Build:
        def built() -> Job:
            mine = copy.deepcopy(model)
            return replace(build(mine), model=mine)

        return built

    builds: dict[str, Callable[[Any], Job]] = {SCG: lambda m: by_program(program_of(m), given)}
    if compiled:
        builds[SCG_COMPILED] = lambda m: by_program_compiled(program_of(m), given)
    builds[BY_HAND] = lambda m: by_loss(by_hand(m), m)
    if compiled:
        builds[BY_HAND_COMPILED] = lambda m: by_loss_compiled(by_hand(m), m)
    return {name: own(build) for name, build in {**builds, **peers}.items()}


def by_loss(loss: Loss, owner: nn.Module) -> Job:
    """The step that goes back through what ``loss()`` returns."""
    return Job(lambda: loss().backward(), tuple(owner.parameters()))


def by_loss_compiled(loss: Loss, owner: nn.Module) -> Job:
    """The same step with its forward pass, inner gradients included, compiled by torch into one region."""
    fast = torch.compile(loss, fullgraph=True)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        fast().backward()
    return by_loss(fast, owner)


def by_program(program: scg.Program, inputs: Mapping[str, Tensor]) -> Job:
    """The step of a compiled graph."""
    return by_loss(lambda: program(**inputs).loss, program)


def by_program_compiled(program: scg.Program, inputs: Mapping[str, Tensor]) -> Job:
    """The step of a compiled graph that torch compiles into one region as well."""
    program.compile()
    for _ in range(2):  # the first runs as it is
        program(**inputs).loss.backward()
    return by_program(program, inputs)
