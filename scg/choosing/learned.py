"""Learned parameters: which arguments of a distribution may need a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scg.analysis.facts import Facts
from scg.evaluation.calls import runner, user_function
from scg.evaluation.invoke import seen
from scg.evaluation.probing import undisturbed
from scg.laws import bind
from scg.nodes import trees as pytree
from scg.nodes.arguments import Ref
from scg.nodes.records import Det, Input, Param, Record, Sample


def learned(facts: Facts, record: Sample) -> frozenset[str]:
    """Return the parameters of a node's law that may need a gradient.

    An input needs none unless its example does, and a value has none where its law has no path to it.
    """
    names = facts.trace.densities[record.name].law.parameters
    if user_function(record) is not None:
        return frozenset(attached(facts, record, names, lambda parent: leads(facts, parent)))
    bound = bind(record.dist.call, record.arguments.args, record.arguments.kwargs)  # type: ignore[arg-type]
    given = {name: bound.get(name) for name in names}
    return frozenset(
        name for name, item in given.items() if isinstance(item, Ref) and leads(facts, item.name)
    )


def attached(
    facts: Facts, record: Sample, names: tuple[str, ...], is_leaf: Callable[[str], bool]
) -> tuple[str, ...]:
    """Return the parameters, of some, that a factory of distributions computes from certain parents."""

    def leaf(value: Tensor) -> Tensor:
        return value.detach().requires_grad_() if value.is_floating_point() else value

    def parent(name: str) -> Any:
        made = leaf if is_leaf(name) else Tensor.detach
        return seen(facts.ir, record, name, pytree.tree_map_only(Tensor, made, facts.trace.values[name]))

    with undisturbed(facts.ir.store.modules), torch.enable_grad():
        args, kwargs = record.arguments.substitute(parent)
        parameters = runner(facts.ir, record)(*args, **kwargs)
    return tuple(name for name in names if parameters[name].requires_grad)


def leads(facts: Facts, name: str) -> bool:
    """Say whether something that may be trained leads to a node with a gradient."""
    met, left = {name}, [name]
    while left:
        record = facts.ir[left.pop()]
        if _begins(facts, record):
            return True
        if not isinstance(record, Sample) and not (
            isinstance(record, Det) and record.differentiable is False
        ):
            left += [parent for parent in record.parents if parent not in met]
            met.update(record.parents)
    return False


def _begins(facts: Facts, record: Record) -> bool:
    """Say whether a node is trained itself, or may have a gradient that its parents do not give it."""
    if isinstance(record, Sample):
        return record.value is None and facts.trace.densities[record.name].law.pathwise is not None
    if isinstance(record, Input):
        example = pytree.tree_leaves(facts.ir.store.examples.get(record.name))
        return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in example)
    owner = record.fn.owner if isinstance(record, Det) else None
    return isinstance(record, Param) or owner is not None or bool(facts.ir.store.reached.get(record.name))
