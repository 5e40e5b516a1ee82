"""The brute-force twin: every element of every stochastic node set apart, with torch's own distributions.

It knows nothing of paths, of plates that keep elements apart, or of laws: it walks the nodes in order,
branches over all joint values of each stochastic node, and multiplies probabilities as it goes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from scg.graph import Graph
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Det, Input, LogProb, Param, Record, Sample

Values = dict[str, Any]


def twin(graph: Graph, sizes: dict[str, int], **inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the objective and its gradient by the names of the parameters."""
    ir, parameters = graph.freeze(), dict(graph.named_parameters())
    leaves = [chance * _objective(ir, sizes, values) for chance, values in _worlds(ir, sizes, inputs)]
    total = torch.stack(leaves).sum()
    parts = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    gradient = {
        name: torch.zeros_like(parameter) if part is None else part
        for (name, parameter), part in zip(parameters.items(), parts, strict=True)
    }
    return total.detach(), gradient


def _worlds(ir: IR, sizes: dict[str, int], inputs: dict[str, Tensor]) -> list[tuple[Tensor, Values]]:
    worlds: list[tuple[Tensor, Values]] = [(torch.ones((), dtype=torch.float64), {})]
    for record in ir.records():
        if isinstance(record, Sample):
            worlds = [
                (chance * more, {**values, record.name: value})
                for chance, values in worlds
                for more, value in _branches(ir, sizes, record, values)
            ]
        else:
            worlds = [
                (chance, {**values, record.name: _value(ir, sizes, inputs, record, values)})
                for chance, values in worlds
            ]
    return worlds


def _branches(
    ir: IR, sizes: dict[str, int], record: Sample, values: Values
) -> Iterator[tuple[Tensor, Tensor]]:
    dist = _distribution(ir, record, values)
    lead = [sizes[plate] for plate in ir.layout[record.name]]
    plated = any(ir.layout[parent] for parent in record.parents)
    dist = dist.expand([*lead, *dist.batch_shape[len(lead) if plated else 0 :]])
    support = dist.enumerate_support(expand=False).reshape(-1, *dist.event_shape)
    for outcome in itertools.product(support, repeat=math.prod(dist.batch_shape)):
        value = torch.stack(outcome).reshape([*dist.batch_shape, *dist.event_shape])
        yield dist.log_prob(value).exp().prod(), value


def _value(ir: IR, sizes: dict[str, int], inputs: dict[str, Tensor], record: Record, values: Values) -> Any:
    if isinstance(record, Input):
        return inputs[record.name]
    if isinstance(record, (Param, Constant)):
        return ir.store.tensors[record.name]
    lead = len(ir.layout[record.name])
    if isinstance(record, LogProb):
        source = record if record.of is None else ir[record.of]
        each = _distribution(ir, source, values).log_prob(_seen(ir, record, record.value, values))
        return each.reshape(*each.shape[:lead], -1).sum(-1)
    assert isinstance(record, Det)
    black = record.differentiable is False

    def leaf(name: str) -> Tensor:
        value = _seen(ir, record, name, values)
        return value.detach() if black else value

    args, kwargs = record.arguments.substitute(leaf)
    result = torch.as_tensor(_function(ir, record.fn)(*args, **kwargs))
    return result.expand([*(sizes[plate] for plate in ir.layout[record.name]), *result.shape[lead:]])


def _distribution(ir: IR, record: Any, values: Values) -> Distribution:
    args, kwargs = record.arguments.substitute(lambda name: _seen(ir, record, name, values))
    dist: Distribution = _function(ir, record.dist)(*args, **kwargs)
    return dist


def _function(ir: IR, function: Any) -> Any:
    return function.call if function.owner is None else ir.store.modules[function.owner]


def _seen(ir: IR, record: Record, parent: str, values: Values) -> Tensor:
    have, want = ir.layout[parent], ir.layout[record.name]
    value: Tensor = values[parent]
    if not have or set(want) <= set(have):
        return value
    for position, plate in enumerate(plate for plate in ir.plates if plate in have or plate in want):
        value = value if plate in have else value.unsqueeze(position)
    return value


def _objective(ir: IR, sizes: dict[str, int], values: Values) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for name in ir.costs:
        plates = [ir.plates[plate] for plate in ir.layout[name]]
        for place in itertools.product(*(range(sizes[plate.name]) for plate in plates)):
            weight = 1.0
            for plate, index in zip(plates, place, strict=True):
                weight *= plate.discount**index / (sizes[plate.name] if plate.reduce == "mean" else 1)
            total = total + weight * values[name][place]
    return total
