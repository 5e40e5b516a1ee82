"""Bounds of counts: the greatest number that a number of trials can be, where the graph tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td

from scg.laws import bind
from scg.nodes import trees as pytree
from scg.nodes.arguments import Ref
from scg.nodes.ir import IR
from scg.nodes.records import Constant, Det, Sample
from scg.probes.known import ELEMENTWISE

DEPTH = 16
"""How many nodes in a row are looked through."""
MANY = 4096
"""The most numbers that are told apart."""

SWITCHES = (td.Bernoulli, td.OneHotCategorical, td.OneHotCategoricalStraightThrough)


def bound(ir: IR, values: Mapping[str, Any], template: Any) -> int | None:
    """Return the greatest number that an argument can be in any element, or None where nothing says so."""
    numbers = _numbers(ir, values, template, DEPTH)
    return None if numbers is None or not bool(numbers.isfinite().all()) else int(numbers.max())


def _numbers(ir: IR, values: Mapping[str, Any], template: Any, depth: int) -> Tensor | None:
    """Return every number that an element of an argument can be: those of finite draws and of constants."""
    if isinstance(template, (int, float)):
        return torch.tensor([float(template)], dtype=torch.float64)
    if not isinstance(template, Ref) or not depth:
        return None
    record = ir[template.name]
    found: Tensor | None = None
    if isinstance(record, Constant):
        found = torch.as_tensor(values[template.name]).detach().double().unique()
    elif isinstance(record, Sample):
        found = _drawn(ir, values, record, depth - 1)
    elif isinstance(record, Det):
        found = _computed(ir, values, record, depth - 1)
    return found if found is None or len(found) <= MANY else None


def _drawn(ir: IR, values: Mapping[str, Any], record: Sample, depth: int) -> Tensor | None:
    cls = record.dist.call
    if cls in SWITCHES:
        return torch.arange(2.0, dtype=torch.float64)
    if cls not in (td.Categorical, td.Binomial):
        return None
    given = bind(cls, record.arguments.args, record.arguments.kwargs)
    if cls is td.Binomial:
        trials = _numbers(ir, values, given.get("total_count", 1), depth)
        return None if trials is None else torch.arange(float(trials.max()) + 1, dtype=torch.float64)
    template = given.get("logits", given.get("probs"))
    if not isinstance(template, Ref):
        return None
    return torch.arange(float(values[template.name].shape[-1]), dtype=torch.float64)


def _computed(ir: IR, values: Mapping[str, Any], record: Det, depth: int) -> Tensor | None:
    """Return what an operation on single elements makes of all that its parents can be."""
    fn = record.fn.call
    if record.differentiable is False or fn is None or not _is_elementwise(fn):
        return None
    names = record.arguments.names
    several = [_numbers(ir, values, Ref(name), depth) for name in names]
    known = [numbers for numbers in several if numbers is not None]
    if len(known) < len(several) or math.prod(map(len, known)) > MANY:
        return None
    grid = dict(zip(names, torch.meshgrid(*known, indexing="ij"), strict=True))
    args, kwargs = record.arguments.substitute(lambda name: grid[name].to(values[name].dtype))
    numbers: Tensor = torch.as_tensor(fn(*args, **kwargs)).double().unique()
    return numbers


def _is_elementwise(fn: Callable[..., Any]) -> bool:
    return getattr(fn, "__hash__", None) is not None and fn in ELEMENTWISE


def is_moved_by_parents(
    made: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], found: Tensor
) -> bool:
    """Say whether a count that a function of tensors makes is another where one of them is.

    What the function cannot do for other values shows nothing.
    """
    leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs)))
    for index, leaf in enumerate(leaves):
        for step in (1, 3, -1):
            if not isinstance(leaf, Tensor):
                continue
            moved = [
                ~leaf if leaf.dtype is torch.bool else leaf + step if k == index else other
                for k, other in enumerate(leaves)
            ]
            other_args, other_kwargs = pytree.tree_unflatten(moved, spec)
            try:
                other = made(*other_args, **other_kwargs)
            except Exception:  # noqa: BLE001 - of an arbitrary function
                continue
            if other.shape != found.shape or not torch.equal(other, found):
                return True
    return False
