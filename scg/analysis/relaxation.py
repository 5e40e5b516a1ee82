"""Relaxation: what lies below a stochastic node at relaxed values of it, and which costs are smooth there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from scg.analysis.calls import is_elementwise, signature
from scg.analysis.crossing import crossed
from scg.analysis.densities import Density, make_density, pad
from scg.analysis.edges import SMOOTH, edge
from scg.analysis.influence import below, stochastic_plates
from scg.analysis.invoke import call, seen
from scg.analysis.moved import Around
from scg.analysis.probing import sampled
from scg.analysis.trace import Evaluations, Trace, density_of, deterministic
from scg.errors import ScgError
from scg.laws import Law, Relaxable, sum_event
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import Cost, Det, Function, LogProb, Record, Sample
from scg.probes.smoothness import Smoothness, Verdict
from scg.probes.twice import Twice, attached, differentiated_twice, is_attached

TEMPERATURE = 0.5


@dataclass(frozen=True, eq=False)
class Relaxation:
    """The part of a graph below one stochastic node, at relaxed values of that node.

    ``records`` are the nodes that lead to a cost in ``smooth``, in order, each with the function that it
    calls there; ``obstacles`` says of every other cost that the node reaches what stops it. ``worlds``
    are evaluations; in their densities relaxed nodes have the law that takes relaxed values. ``opaque``
    names the nodes whose functions differentiate by themselves, in an ``autograd.Function``.
    """

    smooth: tuple[str, ...]
    obstacles: Mapping[str, str]
    records: tuple[Record, ...]
    worlds: Sequence[Trace]
    opaque: tuple[str, ...]


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

    def told(self, cost: str) -> str:
        """Describe what stops a cost."""
        culprit = self.origin[cost]
        path = nx.shortest_path(self.ir.dag, self.owner, culprit)
        path += nx.shortest_path(self.ir.dag, culprit, cost)[1:]
        shown = " -> ".join(path if len(path) < 9 else [*path[:4], "...", *path[-4:]])
        return f"the path {shown} is not smooth at relaxed values ({culprit}: {self.failed[culprit]})"


def relaxation(
    ir: IR,
    worlds: list[Trace],
    moved: Callable[[], list[Trace]],
    useful: frozenset[str],
    name: str,
    known: dict[Any, Any],
) -> Relaxation:
    """Return what can be evaluated smoothly below a node; ``worlds`` are evaluations at hard values.

    Everything below that can be relaxed is; what is continuous is drawn with its derivative, which has to
    be right twice, since control parameters are trained through it. ``moved`` gives evaluations of which
    some may lie outside of what functions are made for.
    """
    lower = [ir[other] for other in below(ir, name) if other in useful]
    search = Search(ir, name, _carrying(worlds[0], name, lower))
    records = tuple(_relaxed_record(search, record) for record in lower)
    first = _evaluated(search, worlds[0], records)
    soft = Evaluations(len(worlds), lambda i: _tried(search, worlds[i], first, records) if i else first)
    around = Around(first, lambda: [*soft[1:3], *(_tried(search, m, first, records) for m in moved())])
    for record in records:
        if not search.inherit(record) and record.name not in search.failed:
            _judge(search, soft, around, record, known)
    costs = [record.name for record in records if isinstance(record, Cost)]
    smooth = tuple(cost for cost in costs if cost not in search.origin)
    needed = set(smooth)
    for record in reversed(records):
        if record.name in needed:
            needed.update(record.parents)
    return Relaxation(
        smooth,
        {cost: search.told(cost) for cost in costs if cost in search.origin},
        tuple(record for record in records if record.name in needed),
        soft,
        tuple(search.opaque),
    )


def _carrying(world: Trace, owner: str, records: Iterable[Record]) -> frozenset[str]:
    """Return the nodes with relaxed values: the owner, samples that can be relaxed, functions of either."""
    found = {owner}
    for record in records:
        if isinstance(record, Sample):
            carries = isinstance(world.densities[record.name].law, Relaxable)
        else:
            carries = isinstance(record, Det) and not found.isdisjoint(record.arguments.names)
        if carries:
            found.add(record.name)
    return frozenset(found)


def _relaxed_record(search: Search, record: Record) -> Record:
    """Return the record with the function that it calls at relaxed values."""
    if isinstance(record, Det) and record.relaxed is not None:
        if search.carrying.isdisjoint(record.arguments.names):
            return record
        return replace(record, fn=Function(record.relaxed), differentiable=record.differentiable or None)
    return record


def _tried(search: Search, world: Trace, soft: Trace, records: tuple[Record, ...]) -> Trace:
    """Evaluate at relaxed values where that is possible, and elsewhere take those of ``soft``."""
    apart = replace(search, failed={}, opaque=[], origin={})
    trace = _evaluated(apart, world, records)
    for name in apart.origin:
        trace.values[name] = soft.values[name]
    return trace


def _evaluated(search: Search, world: Trace, records: tuple[Record, ...]) -> Trace:
    """Evaluate the nodes below the owner, whose value is relaxed; what raises is noted as failed."""
    trace = Trace(dict(world.values), dict(world.densities), world.sizes)
    owner, density = search.owner, world.densities[search.owner]
    if isinstance(density.law, Relaxable):
        trace.values[owner] = relaxed_value(density, world.event_batch(owner))
        trace.densities[owner] = replace(density, law=density.law.soft)
    for record in records:
        if not search.inherit(record) and record.name not in search.failed:
            try:
                trace.values[record.name] = _value(search, trace, record)
            except ScgError as error:
                search.fail(record.name, _advice(error))
    return trace


def _value(search: Search, trace: Trace, record: Record) -> Any:
    ir = search.ir
    if isinstance(record, Det):
        return _shaped(search, trace, record, deterministic(ir, trace, record))
    if isinstance(record, LogProb):
        return _log_prob(search, trace, record)
    assert isinstance(record, Sample)
    batch = trace.event_batch(record.name)
    density = trace.densities[record.name] = make_density(ir, trace.values, record, record.dist)
    if isinstance(density.law, Relaxable):
        trace.densities[record.name] = replace(density, law=density.law.soft)
        return relaxed_value(density, batch)
    if density.law.pathwise is None or not density.law.twice:
        search.fail(record.name, f"a {density.law.family} can neither be relaxed nor differentiated twice")
    return sampled(density.law, dict(density.parameters), batch)


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


def _shaped(search: Search, trace: Trace, record: Det, value: Any) -> Any:
    """Refuse a value of another shape than at hard values, unless a relaxed function gave it."""
    hard = trace.values[record.name]
    original = search.ir[record.name]
    if isinstance(original, Det) and original.fn.call is not record.fn.call:
        return value
    found, wanted = _shapes(value), _shapes(hard)
    if found != wanted:
        search.fail(
            record.name, f"it gives {found} at a relaxed value, not {wanted}; declare it with relaxed="
        )
    return value


def _shapes(value: Any) -> str:
    leaves = [tuple(leaf.shape) for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return "shape " + ", ".join(map(str, leaves))


def _log_prob(search: Search, trace: Trace, record: LogProb) -> Tensor:
    """Return a log-probability, at a relaxed value by the law that takes those."""
    ir, density = search.ir, density_of(search.ir, trace, record)
    if record.of is None and record.value in search.carrying:
        density = replace(density, law=soft_law(density.law))
    trace.densities[record.name] = density
    plates = len(ir.layout[record.name])
    value = seen(ir, record, record.value, trace.values[record.value])
    lead = plates if ir.layout[record.value] else 0
    value = pad(value, lead, density.inner - (value.dim() - density.law.value_rank - lead))
    result: Tensor = call(record, density.law.log_prob, (dict(density.parameters), value), {})
    return sum_event(result, plates)


def soft_law(law: Law) -> Law:
    """Return the law that takes relaxed values, where there is one."""
    return law.soft if isinstance(law, Relaxable) else law


def _judge(
    search: Search, worlds: Sequence[Trace], around: Around, record: Record, known: dict[Any, Any]
) -> None:
    """Fail a node that is not a smooth function of a parent that depends on the owner, or crosses a plate."""
    if search.ir[record.name] is not record:
        for plate, finding in crossed(search.ir, list(worlds[:3]), record, stochastic_plates(search.ir), {}):
            if finding.joint is not None:
                search.fail(record.name, f"its function of relaxed values crosses plate '{plate}'")
                return
    for parent in record.parents:
        if parent not in search.reached:
            continue
        verdict = _verdict(search, around, parent, record, known)
        if verdict.smoothness is not Smoothness.SMOOTH:
            unknown = verdict.smoothness is Smoothness.UNKNOWN
            remedy = "; declare it with differentiable=True if you know that it is smooth" if unknown else ""
            search.fail(record.name, verdict.reason + remedy)
            return
    if isinstance(record, Det) and not is_elementwise(record):
        key = ("twice", signature(search.ir, worlds[0], record))
        if key not in known:
            known[key] = _differentiated_twice(search, worlds[0], record)
        if known[key].fault is not None:
            search.fail(record.name, known[key].fault)
        if known[key].is_opaque:
            search.opaque.append(record.name)


def _differentiated_twice(search: Search, trace: Trace, record: Det) -> Twice:
    """Differentiate a node's function in what depends on the owner, and its derivatives once more."""
    names = [parent for parent in record.parents if parent in search.reached]
    live = Trace(dict(trace.values), trace.densities, trace.sizes)
    live.values.update({name: pytree.tree_map_only(Tensor, attached, trace.values[name]) for name in names})
    leaves = [leaf for leaf in pytree.tree_leaves([live.values[name] for name in names]) if is_attached(leaf)]
    with torch.enable_grad():
        outputs = pytree.tree_leaves(deterministic(search.ir, live, record))
        return differentiated_twice([leaf for leaf in outputs if is_attached(leaf)], leaves)


def _verdict(search: Search, around: Around, parent: str, record: Record, known: dict[Any, Any]) -> Verdict:
    if isinstance(record, LogProb) and record.value == parent and parent in search.carrying:
        law = around.first.densities[record.name].law
        if isinstance(law, Relaxable):
            return SMOOTH  # linear
    return edge(search.ir, around, parent, record, known)


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
