"""Soft evaluations: what lies below a stochastic node at relaxed values, each value computed once for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.errors import ScgError
from scg.evaluation.densities import Density, make_density, pad
from scg.evaluation.invoke import call, seen
from scg.evaluation.probing import sampled
from scg.evaluation.trace import Trace, density_of, deterministic
from scg.laws import Law, Relaxable, sum_event
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Det, LogProb, Record, Sample

TEMPERATURE = 0.5


@dataclass(eq=False)
class Search:
    """One walk from a relaxed node to the costs below: what carries relaxed values, what failed, and why."""

    ir: IR
    owner: str
    carrying: frozenset[str]
    failed: dict[str, str] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)

    @cached_property
    def reached(self) -> set[str]:
        """The owner and what lies below it."""
        return {self.owner, *nx.descendants(self.ir.dag, self.owner)}

    def fail(self, name: str, reason: str) -> None:
        """Note that a node cannot be evaluated smoothly, for a reason of its own."""
        self.failed.setdefault(name, reason)
        self.origin.setdefault(name, name)

    def inherit(self, record: Record) -> bool:
        """Say whether a parent failed, and note that the node fails with it."""
        source = next((self.origin[parent] for parent in record.parents if parent in self.origin), None)
        if source is not None:
            self.origin[record.name] = source
        return source is not None

    def obstacle(self, cost: str) -> str:
        """Describe what stops a cost."""
        culprit = self.origin[cost]
        path = nx.shortest_path(self.ir.dag, self.owner, culprit)
        path += nx.shortest_path(self.ir.dag, culprit, cost)[1:]
        shown = " -> ".join(path if len(path) < 9 else [*path[:4], "...", *path[-4:]])
        return f"the path {shown} is not smooth at relaxed values ({culprit}: {self.failed[culprit]})"


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What evaluating one node gave: its value, if it did not raise, its density, and why it cannot serve."""

    value: Any = None
    density: Density | None = None
    fault: str | None = None


@dataclass(frozen=True, eq=False)
class Softening:
    """Evaluations of a graph below its nodes at relaxed values of them.

    A node that reads the very same values below one owner as below another is evaluated once for both. One
    relaxed value of a node serves below all owners: it is an example, and no more so at other parameters.
    So along a chain a node is evaluated twice, and not once for every node above it.
    """

    found: dict[Any, Evaluated] = field(default_factory=dict)
    drawn: dict[Any, Tensor] = field(default_factory=dict)

    def evaluate(self, search: Search, world: Trace, records: Sequence[Record]) -> Trace:
        """Evaluate the nodes below the owner, whose value is relaxed; what raises is noted as failed."""
        trace = Trace(dict(world.values), dict(world.densities), world.sizes)
        owner = search.owner
        if isinstance(world.densities[owner].law, Relaxable):
            self._put(search, trace, owner, self._owner(world, owner))
        for record in records:
            if not search.inherit(record) and record.name not in search.failed:
                self._put(search, trace, record.name, self._once(search, world, trace, record))
        return trace

    def attempt(self, search: Search, world: Trace, soft: Trace, records: Sequence[Record]) -> Trace:
        """Evaluate where that is possible, and elsewhere take the values of ``soft``."""
        apart = replace(search, failed={}, opaque=[], origin={})
        trace = self.evaluate(apart, world, records)
        for name in apart.origin:
            trace.values[name] = soft.values[name]
        return trace

    def _put(self, search: Search, trace: Trace, name: str, found: Evaluated) -> None:
        if found.fault is not None:
            search.fail(name, found.fault)
        if found.density is not None:
            trace.densities[name] = found.density
        if found.value is not None:
            trace.values[name] = found.value

    def _owner(self, world: Trace, name: str) -> Evaluated:
        key = id(world), name
        if key not in self.found:
            self.found[key] = self._relaxed(world, name, world.densities[name], world.event_batch(name))
        return self.found[key]

    def _once(self, search: Search, world: Trace, trace: Trace, record: Record) -> Evaluated:
        """Evaluate a node, unless it was at the very same values; ``world`` has those of all others."""
        own = trace.densities.get(record.of) if isinstance(record, LogProb) and record.of else None
        takes_relaxed = isinstance(record, LogProb) and record.value in search.carrying
        is_original = search.ir[record.name] is record
        read = tuple(id(trace.values[parent]) for parent in record.parents)
        key = id(world), record.name, read, id(own), takes_relaxed, is_original
        if key not in self.found:
            self.found[key] = self._evaluated(search, world, trace, record)
        return self.found[key]

    def _evaluated(self, search: Search, world: Trace, trace: Trace, record: Record) -> Evaluated:
        try:
            if isinstance(record, Det):
                return _deterministic(search, trace, record)
            if isinstance(record, LogProb):
                return _log_prob(search, trace, record)
            assert isinstance(record, Sample)
            return self._sample(search, world, trace, record)
        except ScgError as error:
            return Evaluated(fault=_advice(error))

    def _sample(self, search: Search, world: Trace, trace: Trace, record: Sample) -> Evaluated:
        batch = trace.event_batch(record.name)
        density = make_density(search.ir, trace.values, record, record.dist)
        law, fault = density.law, None
        if isinstance(law, Relaxable):
            return self._relaxed(world, record.name, density, batch)
        if law.pathwise is None or not law.twice:
            fault = f"a {law.family} can neither be relaxed nor differentiated twice"
        return Evaluated(sampled(law, dict(density.parameters), batch), density, fault)

    def _relaxed(self, world: Trace, name: str, density: Density, batch: torch.Size) -> Evaluated:
        """Return a relaxed value of a node, with the law that takes those."""
        law = density.law
        assert isinstance(law, Relaxable)
        shape = law.noise_shape(dict(density.parameters), batch)
        key = id(world), name, law, tuple(shape), density.parameters[law.given].dtype
        if key not in self.drawn:
            self.drawn[key] = relaxed_value(density, batch)
        return Evaluated(self.drawn[key], replace(density, law=law.soft))


def _deterministic(search: Search, trace: Trace, record: Det) -> Evaluated:
    """Refuse a value of another shape than at hard values, unless a relaxed function gave it."""
    value, original = deterministic(search.ir, trace, record), search.ir[record.name]
    if isinstance(original, Det) and original.fn.call is not record.fn.call:
        return Evaluated(value)
    found, wanted = _shapes(value), _shapes(trace.values[record.name])
    if found == wanted:
        return Evaluated(value)
    fault = f"it gives {found} at a relaxed value, not {wanted}; declare it with relaxed="
    return Evaluated(value, fault=fault)


def perturbed_value(density: Density, batch: torch.Size) -> Tensor:
    """Draw the value before the hard step from torch's global generator."""
    law, parameters = density.law, dict(density.parameters)
    assert isinstance(law, Relaxable)
    given = next(iter(parameters.values())).detach()
    dtype = torch.promote_types(given.dtype, torch.float32)
    noise = torch.rand(law.noise_shape(parameters, batch), dtype=dtype, device=given.device)
    eps = torch.finfo(dtype).eps
    return law.perturbed(parameters, noise.clamp(eps, 1 - eps)).detach()


def relaxed_value(density: Density, batch: torch.Size) -> Tensor:
    """Draw a relaxed value, in the type of the parameters."""
    law = density.law
    assert isinstance(law, Relaxable)
    soft = law.relax(perturbed_value(density, batch), TEMPERATURE)
    return soft.to(density.parameters[law.given].dtype)


def _shapes(value: Any) -> str:
    leaves = [tuple(leaf.shape) for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return "shape " + ", ".join(map(str, leaves))


def _log_prob(search: Search, trace: Trace, record: LogProb) -> Evaluated:
    """Return a log-probability, at a relaxed value by the law that takes those."""
    ir, density = search.ir, density_of(search.ir, trace, record)
    if record.of is None and record.value in search.carrying:
        density = replace(density, law=soft_law(density.law))
    plates = len(ir.layout[record.name])
    value = seen(ir, record, record.value, trace.values[record.value])
    lead = plates if ir.layout[record.value] else 0
    value = pad(value, lead, density.inner - (value.dim() - density.law.value_rank - lead))
    result: Tensor = call(record, density.law.log_prob, (dict(density.parameters), value), {})
    return Evaluated(sum_event(result, plates), density)


def soft_law(law: Law) -> Law:
    """Return the law that takes relaxed values, where there is one."""
    return law.soft if isinstance(law, Relaxable) else law


def _advice(error: ScgError) -> str:
    """Say what raised at a relaxed value, and what to write instead."""
    cause = error.__cause__
    found = f"it raised {type(cause).__name__} at a relaxed value" if cause is not None else str(error)
    if cause is not None and "torch/distributions" in _files(cause):
        return f"{found}; write a log-probability as g.log_prob(...), which takes relaxed values"
    return f"{found}; declare it with relaxed=, a function of relaxed values"


def _files(error: BaseException) -> str:
    return " ".join(_frames(error)).replace("\\", "/")


def _frames(error: BaseException) -> Iterator[str]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
