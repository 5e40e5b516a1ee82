"""The plan: what every part of lowering reads, decided before the first line is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from scg.analysis.facts import Facts
from scg.choosing.choice import Choice, View, views
from scg.choosing.controls import Controlled
from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.kinds import Branched
from scg.evaluation.calls import user_function
from scg.nodes.ir import IR
from scg.nodes.records import Input, Param, Sample
from scg.surrogate.lowering.emitter import is_library
from scg.surrogate.lowering.watch import UNWATCHED, Watch

REPLICATES = "#samples"
POINTS = "#points"
NOISE = "#noise"

Labels = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """What every part of lowering reads.

    ``axes`` are the added dimensions in their one order, ``modes`` how each function takes them,
    ``varying`` the nodes that may carry one, ``useful`` those that lead to a cost. ``controls`` has what
    is known of the controls of nodes that have some; ``learnable`` names the samples whose parameters may
    need a gradient; ``constants`` has the numbers that the program holds, by name, those of programs
    emitted before included. ``looped`` names nodes that are looped, whatever their example says, and
    ``relaxed`` keeps the run modes of relaxed parts. ``watch`` sees the calls of the program that is written.
    """

    ir: IR
    facts: Facts
    choices: Mapping[str, Choice]
    samples: int | None
    axes: Labels
    modes: Mapping[str, str]
    varying: frozenset[str]
    useful: frozenset[str]
    controls: Mapping[str, Controlled]
    learnable: frozenset[str]
    constants: dict[str, Tensor] = field(default_factory=dict)
    looped: frozenset[str] = frozenset()
    relaxed: dict[str, Mapping[str, str]] = field(default_factory=dict)
    watch: Watch = UNWATCHED

    def views(self, name: str) -> tuple[View, ...]:
        """Return a node as each of its estimators sees it."""
        return views(self.facts, name, self.choices[name])

    def of(self, view: View) -> Plan:
        """Return the plan of the graph that a view is of."""
        if view.facts is self.facts:
            return self
        if view.facts not in self._narrowed:
            ir, useful = view.facts.ir, view.facts.useful
            self._narrowed[view.facts] = replace(self, ir=ir, facts=view.facts, useful=useful, relaxed={})
        return self._narrowed[view.facts]

    @cached_property
    def _narrowed(self) -> dict[Facts, Plan]:
        return {}

    @property
    def relaxed_parts(self) -> list[Mapping[str, str]]:
        """The run modes of every relaxed part, those of narrower graphs included."""
        return [modes for plan in (self, *self._narrowed.values()) for modes in plan.relaxed.values()]

    def relaxed_modes(self, name: str) -> Mapping[str, str]:
        """Return how functions take added dimensions in the relaxed part below a node, found once."""
        if name not in self.relaxed:
            self.relaxed[name] = {**self.facts.relaxed_modes(name), **dict.fromkeys(self.looped, "loop")}
        return self.relaxed[name]

    def axis(self, label: str, apart: frozenset[str] = frozenset(), coupled: str | None = None) -> Axis:
        """Return an axis, its size left out; no cost joins elements of added ones and of plates ``apart``.

        ``coupled`` tells how the noise of the node is coupled across replicates.
        """
        if label == REPLICATES:
            return Axis("replicates", 0, coupled=coupled)
        if label not in self.ir.plates:
            return Axis(f"outcomes of {label.removeprefix('#')}", 0, is_mean=False)
        plate = self.ir.plates[label]
        return Axis(label, 0, plate.reduce == "mean", plate.discount, label not in apart, plate.ordered)

    def constant(self, name: str, value: Tensor) -> str:
        """Return the name under which the program holds a number; equal numbers of one name are shared."""
        key = (name, value.dtype, value.item())  # of one element: what is larger is a node
        if key not in self._numbers:
            self._numbers[key] = f"{name}_{len(self.constants) + 1}"
            self.constants[self._numbers[key]] = value
        return self._numbers[key]

    @cached_property
    def _numbers(self) -> dict[tuple[str, torch.dtype, float], str]:
        return {(n.rpartition("_")[0], v.dtype, v.item()): n for n, v in self.constants.items()}

    def ordered(self, axes: Iterable[str]) -> Labels:
        """Return added axes in their one order, each once."""
        several = frozenset(axes)
        return tuple(axis for axis in self.axes if axis in several) if several else ()


def make_plan(
    facts: Facts,
    choices: Mapping[str, Choice],
    samples: int | None,
    controls: Mapping[str, Controlled],
    constants: Mapping[str, Tensor],
    looped: frozenset[str] = frozenset(),
    watch: Watch = UNWATCHED,
) -> Plan:
    """Return what lowering reads, with a run mode for each function that meets an added dimension."""
    ir = facts.ir
    enumerated = [name for name in ir.samples if isinstance(choices[name].estimator, Branched)]
    replicates = () if samples is None else (REPLICATES,)
    axes = (POINTS, *replicates, *(f"#{name}" for name in enumerated))
    varying = facts.influence.stochastic
    several = (
        samples is not None
        or enumerated
        or any(c.asks.downstream or c.asks.redraws for c in choices.values())
    )
    widened = [name for name in ir if not varying.isdisjoint(ir[name].arguments.names)] if several else []
    modes = facts.modes(widened, varying) if widened else {}
    modes.update(dict.fromkeys(looped.intersection(modes), "loop"))
    return Plan(
        ir=ir,
        facts=facts,
        choices=choices,
        samples=samples,
        axes=axes,
        modes=modes,
        varying=varying,
        useful=facts.useful,
        controls=controls,
        learnable=learnable(ir, choices),
        constants=dict(constants),
        looped=looped,
        watch=watch,
    )


def learnable(ir: IR, choices: Mapping[str, Choice]) -> frozenset[str]:
    """Return the samples whose parameters may need a gradient: all but those known to have none.

    Inputs may come from an encoder outside, and functions may capture parameters.
    """
    attached: set[str] = set()
    found: set[str] = set()
    for record in ir.records():
        function = user_function(record)
        captures = function is not None and (function.call is None or not is_library(function.call))
        above = captures or not attached.isdisjoint(record.parents)
        if isinstance(record, Sample):
            if above:
                found.add(record.name)
            if above and choices[record.name].through is not None:
                attached.add(record.name)
        elif above or isinstance(record, (Param, Input)):
            attached.add(record.name)
    return frozenset(found)
