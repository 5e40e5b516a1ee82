"""Facts: everything the later stages know of a graph, found once on example values."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scg.analysis.bends import bend, law_bends
from scg.analysis.bypassed import bypassed
from scg.analysis.choices import Finding
from scg.analysis.crossing import crossings, foreseen
from scg.analysis.hidden import Hidden, hidden
from scg.analysis.influence import Influence, influence, useful
from scg.analysis.modes import does_repeat, run_modes
from scg.analysis.paths import Paths, describe, paths
from scg.analysis.relaxation import Relaxation, relaxation
from scg.analysis.soft import Softening
from scg.analysis.unmoved import unmoved
from scg.errors import GradientWarning, GraphError, PlateError
from scg.evaluation.densities import Density
from scg.evaluation.moved import Around, moved_traces
from scg.evaluation.probing import other_than, spread, undisturbed
from scg.evaluation.sizes import plate_sizes
from scg.evaluation.trace import Evaluations, Trace, evaluate
from scg.nodes.ir import IR
from scg.nodes.records import Record
from scg.nodes.trees import needs_gradient, tree_map_only
from scg.noise import NoiseSpec
from scg.probes.smoothness import Verdict

HERE = str(Path(__file__).parent.parent)
WORLDS = 5
ENLARGED = 4


@dataclass(frozen=True, eq=False)
class Facts:
    """What holds of a graph on example inputs; the expensive part is found when first asked for."""

    ir: IR
    inputs: Mapping[str, Tensor]
    assumed: tuple[str, ...]

    @cached_property
    def trace(self) -> Trace:
        """One evaluation of the graph, every node checked against its declaration."""
        return self._world(0)

    @cached_property
    def worlds(self) -> Sequence[Trace]:
        """Evaluations that differ in everything random."""
        return Evaluations(WORLDS, self._other)

    def _other(self, index: int) -> Trace:
        if index < 2:
            return self._contrast(index) if index else self.trace
        return self._world(index)

    def only(self, costs: tuple[str, ...]) -> Facts:
        """Return the facts of the graph with no other costs than these, at the same values."""
        if costs not in self._narrowed:
            found = Facts(self.ir.only(costs), self.inputs, self.assumed)
            vars(found).update(trace=self.trace, worlds=self.worlds)
            self._narrowed[costs] = found
        return self._narrowed[costs]

    @cached_property
    def _narrowed(self) -> dict[tuple[str, ...], Facts]:
        return {}

    @cached_property
    def influence(self) -> Influence:
        """Which costs each stochastic node reaches, and the plates kept on the way."""
        return influence(self.ir)

    @cached_property
    def moved(self) -> list[Trace]:
        """Evaluations with inputs and parameters off their values."""
        return moved_traces(self.ir, self.inputs, self.trace)

    @cached_property
    def paths(self) -> Paths:
        """Where values would flow into edges that are not smooth, and what was found of every edge."""
        return paths(self.ir, self._around)

    @property
    def _around(self) -> Around:
        return Around(self.trace, lambda: [*self.worlds[1:3], *self.moved])

    @property
    def known_edges(self) -> Mapping[tuple[str, str], Verdict]:
        """What was found of edges from parents to children, if that was asked."""
        found: Paths | None = self.__dict__.get("paths")
        several = [*([] if found is None else [found]), *self._discrete_paths.values()]
        return {pair: verdict for one in several for pair, verdict in one.edges.items()}

    def obstacle(self, name: str) -> str | None:
        """Describe the first path from a node towards a cost that is not known to be smooth.

        Discrete values are taken for the numbers that they are.
        """
        if self.trace.densities[name].law.pathwise is not None:
            return describe(self.ir, self.paths.breaks, name)
        if name not in self._discrete_paths:
            self._discrete_paths[name] = paths(self.ir, self._around, name)
        return describe(self.ir, self._discrete_paths[name].breaks, name)

    def bend(self, name: str, order: int) -> str | None:
        """Describe the first function below a value of which a derivative below the order jumps, or may."""
        return bend(self.ir, self._around, self.useful, name, order)

    def law_bends(self, name: str, order: int) -> str | None:
        """Say in which parameter a derivative of the density of a sample, below the order, jumps."""
        return law_bends(self.trace, name, order)

    @cached_property
    def _discrete_paths(self) -> dict[str, Paths]:
        return {}

    @cached_property
    def _relaxations(self) -> dict[str, Relaxation]:
        return {}

    @cached_property
    def _softening(self) -> Softening:
        return Softening()

    @cached_property
    def _relaxed_edges(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def _relaxed_modes(self) -> dict[Any, str]:
        return {}

    @cached_property
    def findings(self) -> dict[tuple[str, str], Finding]:
        """What was found of joined elements, by node and plate."""
        return {}

    @cached_property
    def hidden(self) -> Hidden:
        """What functions do unseen between what is learned and the costs."""
        return self.hidden_from(name for name, value in self.inputs.items() if needs_gradient(value))

    def hidden_from(self, attached: Iterable[str]) -> Hidden:
        """Return what functions hide where the named inputs require a gradient."""
        with undisturbed(self.ir.store.modules):
            return hidden(self.ir, self.trace, lambda: self.worlds[1], attached)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What users are warned of: lost gradients, and values drawn elsewhere that are not told so."""
        with undisturbed(self.ir.store.modules):
            found = unmoved(self.ir, self.worlds, lambda: self.moved) if self.ir.costs else []
            found += bypassed(self.ir)
            found += foreseen(self.ir, [self.trace, *self.moved]) if self.ir.given else []
        return (*self.hidden.warnings, *found)

    @cached_property
    def useful(self) -> frozenset[str]:
        """The names of the nodes that are costs or lead to one."""
        return useful(self.ir)

    @cached_property
    def noise(self) -> Mapping[str, NoiseSpec]:
        """The base noise of each stochastic node that has some, with its shape beyond the plates."""
        specs = {}
        for name in self.ir.samples:
            density = self.trace.densities[name]
            if density.law.noise != "value":
                specs[name] = self._noise_spec(name, density)
        return specs

    def _noise_spec(self, name: str, density: Density) -> NoiseSpec:
        shape = self.trace.values[name].shape
        batch = shape[: len(shape) - density.law.value_rank]
        full = density.law.noise_shape(density.parameters, batch)
        return NoiseSpec(name, density.law.noise, tuple(full[len(self.ir.layout[name]) :]), density.dtype)

    def together(self, name: str) -> tuple[str, ...]:
        """Return the plates of a sample whose elements share no cost, so that they can be set at once."""
        kept = self.influence.kept_by_all(self.ir, name)
        return tuple(plate for plate in kept if not self.ir.plates[plate].ordered)

    def modes(self, names: Iterable[str], varying: frozenset[str]) -> dict[str, str]:
        """Return how each named node takes added dimensions in the parents that vary."""
        with undisturbed(self.ir.store.modules):
            return run_modes(self.ir, self.worlds, (self.ir[name] for name in names), varying, {})

    def repeats(self, name: str, plates: frozenset[str], varying: frozenset[str], mode: str) -> bool:
        """Say whether a node repeats along plates where its parents do: it may then be computed once."""
        with undisturbed(self.ir.store.modules):
            return does_repeat(self.ir, self.worlds, self.ir[name], plates, varying, mode)

    def relaxation(self, name: str) -> Relaxation:
        """Return what lies below a stochastic node at relaxed values of it."""
        if name not in self._relaxations:
            worlds, moved = self.worlds, lambda: self.moved
            with undisturbed(self.ir.store.modules, self._seed(name)):
                self._relaxations[name] = relaxation(
                    self.ir, worlds, moved, self.useful, name, self._softening, self._relaxed_edges
                )
        return self._relaxations[name]

    def known_relaxation(self, name: str) -> Relaxation | None:
        """Return what was found to lie below a stochastic node at relaxed values, if that was asked."""
        return self._relaxations.get(name)

    def relaxed_modes(self, name: str) -> dict[str, str]:
        """Return how each node of the relaxed part below a node takes added dimensions."""
        found, stochastic = self.relaxation(name), self.influence.stochastic
        widened = [r for r in found.records if not stochastic.isdisjoint(r.arguments.names)]
        with undisturbed(self.ir.store.modules, self._seed(name) + 1):
            return run_modes(self.ir, found.worlds, widened, stochastic, self._relaxed_modes)

    def _seed(self, name: str) -> int:
        """Return a seed, and the next one, that no other node has: what they draw serves others too."""
        return WORLDS + 2 * self.ir.samples.index(name)

    def is_short(self, name: str, limit: int) -> bool:
        """Say whether at most ``limit`` nodes lie below a node."""
        found, waiting = {name}, [name]
        while waiting and len(found) <= limit + 1:
            fresh = [child for child in self.ir.children(waiting.pop()) if child not in found]
            found.update(fresh)
            waiting += fresh
        return len(found) <= limit + 1

    def faults(self) -> list[str]:
        """Return what is wrong with the graph on these inputs, all of it."""
        found = [fault for name in self.ir.costs if (fault := self._cost_fault(name)) is not None]
        for name in self.ir.samples:
            density = self.trace.densities[name]
            violated = density.law.violations(density.parameters)
            if violated is not None:
                found.append(
                    f"sample '{name}' ({self.ir[name].where}): {density.law.family} parameter {violated}"
                )
        if self.ir.plates and self.ir.samples:
            with undisturbed(self.ir.store.modules):
                found += crossings(self.ir, self.worlds[:3], self.findings)
        return [*found, *self.hidden.faults]

    def _world(self, seed: int) -> Trace:
        with undisturbed(self.ir.store.modules, seed):
            return evaluate(self.ir, self.inputs, spread, draws_all=seed > 0)

    def _contrast(self, seed: int) -> Trace:
        """Evaluate the graph with a different outcome for every element of every finite draw."""

        def draw(record: Record, density: Density, batch: torch.Size) -> Tensor:
            if not density.law.finite:
                return spread(record, density, batch)
            return other_than(density.law, dict(density.parameters), self.trace.values[record.name])

        with undisturbed(self.ir.store.modules, seed):
            return evaluate(self.ir, self.inputs, draw, draws_all=True)

    def _cost_fault(self, name: str) -> str | None:
        value, plates = self.trace.values[name], self.ir.layout[name]
        where = f"cost '{name}' ({self.ir[name].where})"
        if not isinstance(value, Tensor):
            return f"{where} is a {type(value).__name__}: return a tensor, one value per plate element"
        if not value.is_floating_point():
            return f"{where} has dtype {value.dtype}: return floating point values, as with .float()"
        if value.dim() != len(plates):
            return (
                f"{where} has shape {tuple(value.shape)}, but one value for each element of its plates "
                f"{plates} is wanted: sum over the other dimensions, or declare them as plates"
            )
        return None


def gather(ir: IR, inputs: Mapping[str, Tensor]) -> Facts:
    """Return the facts of a graph on example inputs; a plate that they leave at one element is enlarged."""
    inputs, assumed = _enlarged(ir, inputs)
    return Facts(ir, inputs, assumed)


def checked(facts: Facts, warned: Container[str] = ()) -> Facts:
    """Return the facts, or raise every fault that they show; warn of what was not warned of before."""
    faults = facts.faults()
    if faults:
        crosses = all("crosses plate" in fault for fault in faults)
        raise (PlateError if crosses else GraphError)("\n".join(faults))
    warn(facts.warnings, warned)
    return facts


def warn(found: Iterable[str], warned: Container[str] = (), kind: type[Warning] = GradientWarning) -> None:
    """Warn of lost gradients, or of another ``kind``, at the line outside of scg that led here."""
    for warning in found:
        if warning not in warned:
            warnings.warn(warning, kind, stacklevel=_outside())


def _outside() -> int:
    """Return the number of frames between the caller and what is outside of scg."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
        frame, level = frame.f_back, level + 1
    return level


def _enlarged(ir: IR, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Repeat the elements of plates of size 1 that only inputs size, so that crossing can be seen."""
    held = {plate for name in ir.params for plate in ir.layout[name]}
    sizes = plate_sizes(ir, inputs)
    small = tuple(
        p for p, plate in ir.plates.items() if sizes[p] == 1 and plate.size is None and p not in held
    )
    enlarged = dict(inputs)
    for name in inputs:
        for index, plate in enumerate(ir.layout[name]):
            if plate in small:
                more = partial(torch.repeat_interleave, repeats=ENLARGED, dim=index)
                enlarged[name] = tree_map_only(Tensor, more, enlarged[name])
    return enlarged, small
