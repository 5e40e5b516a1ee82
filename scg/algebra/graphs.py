"""Reading a graph: its costs, and the parameters of its distributions, where all that is random is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import sympy as sp
import torch
from torch import Size, Tensor, nn
from torch.utils import _pytree as pytree

from scg.algebra.arrays import Array, array, each, filled, flat, number, symbols
from scg.algebra.families import MAPS, MASSES, outcomes
from scg.algebra.model import Model, Variable
from scg.algebra.tracing import traced, unchecked
from scg.algebra.twins import twinned
from scg.analysis.check import accept
from scg.errors import GraphError, UnreadableError
from scg.evaluation.densities import Density
from scg.evaluation.trace import evaluate
from scg.nodes.ir import CAPTURED, IR, Store, hold
from scg.nodes.records import Record


def model(ir: IR, inputs: Mapping[str, Any]) -> Model:
    """Read a graph on inputs, or refuse it by the node or function that cannot be read."""
    if not ir.costs:
        raise GraphError('the graph has no costs, hence no objective: declare one with g.cost("name", node)')
    ir.drawn_here("a proof")
    given = accept(ir, {**ir.store.examples, **inputs})
    _check_black_boxes(ir)
    holder = Holder(ir)
    values = {name: p.detach() for name, p in holder.named_parameters() if p.requires_grad}
    captured = [name for name in values if name.startswith(f"{CAPTURED}.")]
    if captured:
        raise UnreadableError(
            f"'{captured[0]}' is captured by a function, which nothing can give another value: "
            "give it to the node as a parent"
        )
    variables, shapes = _first(ir, given)
    run = _runner(ir, given, {v.name: v for v in variables})
    examples = {v.name: v.example for v in variables}
    evaluated = _evaluated(holder, run)
    with torch.no_grad():
        _, spec = pytree.tree_flatten(evaluated(values, examples))
    graph = traced(_evaluated(Holder(twinned(ir)), run), values, examples, what="the graph")
    names = {name: symbols(name, tuple(value.shape), real=True) for name, value in values.items()}
    entries = [s.name for own in names.values() for s in flat(own)]
    entries += [s.name for v in variables if not v.outcomes for s in flat(symbols(f"{v.name}_", v.shape))]
    if twice := [name for name in entries if entries.count(name) > 1]:
        raise UnreadableError(f"two symbols would be called '{twice[0]}': rename a parameter or a node")
    weights = {cost: _weight(ir, cost, shapes) for cost in ir.costs}
    found = Model(ir, names, tuple(variables), graph, spec, weights, values, evaluated)
    found.believe()
    return found


def _evaluated(holder: Holder, run: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of parameters and of what is random."""

    def evaluated(live: Mapping[str, Tensor], drawn: Mapping[str, Tensor]) -> Any:
        with unchecked():
            return torch.func.functional_call(holder, dict(live), (lambda ir: run(ir, drawn),))

    return evaluated


class Holder(nn.Module):
    """What a graph holds, so that ``functional_call`` can exchange it."""

    def __init__(self, ir: IR) -> None:
        """Hold it under its names."""
        super().__init__()
        self.ir = ir
        hold(self, ir.store)

    def forward(self, run: Callable[[IR], Any]) -> Any:
        """Run something on the graph with what is held now."""
        store = self.ir.store
        tensors = {name: _held(self, name) for name in store.tensors}
        return run(replace(self.ir, store=Store(tensors, store.modules, store.examples, store.reached)))


def _held(module: nn.Module, name: str) -> Any:
    *outer, last = name.split(".")
    return getattr(module.get_submodule(".".join(outer)), last)


def _first(ir: IR, given: Mapping[str, Any]) -> tuple[list[Variable], dict[str, int]]:
    """Evaluate the graph once, to learn families and shapes."""
    found: list[Variable] = []

    def draw(record: Record, density: Density, batch: Size) -> Tensor:
        law, parameters = density.law, density.law.expand(dict(density.parameters), batch)
        value: Tensor = law.distribution({k: v.detach() for k, v in parameters.items()}).sample()
        family = law.family
        if not law.finite and family not in MAPS:
            known = ", ".join(MAPS)
            raise UnreadableError(
                f"sample '{record.name}' ({record.where}) is {family}, neither finite nor one of {known}"
            )
        several = tuple(outcomes(law.support(parameters))) if law.finite else ()
        lead = value.dim() - law.value_rank
        shape, event = tuple(value.shape[:lead]), tuple(value.shape[lead:])
        example = value if several else torch.rand_like(value)
        found.append(Variable(record.name, family, shape, several, event, example))
        return value

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        trace = evaluate(ir, given, draw)
    return found, trace.sizes


def _runner(ir: IR, given: Mapping[str, Any], variables: Mapping[str, Variable]) -> Callable[..., Any]:
    """Return what evaluates the graph where variables are given: costs, and parameters of laws."""

    def run(live: IR, drawn: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        met: dict[str, dict[str, Tensor]] = {}

        def draw(record: Record, density: Density, batch: Size) -> Tensor:
            parameters = density.law.expand(dict(density.parameters), batch)
            variable = variables[record.name]
            met[record.name] = {k: v for k, v in parameters.items() if v.is_floating_point()}
            if variable.outcomes:
                if variable.family not in MASSES:
                    met[record.name]["mass"] = density.law.mass(parameters)
                return drawn[record.name]
            return MAPS[variable.family][1](parameters, drawn[record.name])

        trace = evaluate(live, given, draw)
        return {name: trace.values[name] for name in ir.costs}, met

    return run


def _weight(ir: IR, cost: str, sizes: Mapping[str, int]) -> Array:
    """Return the weight of every element of a cost: 1/n for a mean plate, discount**t on an ordered one."""
    weight = filled((), sp.Integer(1))
    for name in ir.layout[cost]:
        plate, size = ir.plates[name], sizes[name]
        share = sp.Rational(1, size) if plate.reduce == "mean" else sp.Integer(1)
        along = array((size,), [share * number(plate.discount) ** step for step in range(size)])
        weight = each(lambda a, b: a * b, weight.moved(lambda places: places.unsqueeze(-1)), along)
    return weight


def _check_black_boxes(ir: IR) -> None:
    """Refuse a black box that parameters reach by no random variable: they count as constant in it."""
    for record in ir.records():
        if getattr(record, "differentiable", None) is not False:
            continue
        waiting = list(record.parents)
        while waiting:
            name = waiting.pop()
            if name in ir.samples:
                continue
            if name in ir.store.tensors and isinstance(ir.store.tensors[name], nn.Parameter):
                raise UnreadableError(
                    f"'{record.name}' ({record.where}) is declared differentiable=False, and parameter "
                    f"'{name}' enters it, which then counts as constant there"
                )
            waiting += ir[name].parents
