"""What the function of one node computes from the values of its parents, whatever kind of node it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from scg.evaluation.densities import taken_apart
from scg.evaluation.invoke import black_box, callable_of, seen
from scg.evaluation.trace import Trace
from scg.laws import LAWS
from scg.nodes import trees as pytree
from scg.nodes.ir import IR
from scg.nodes.records import STRUCTURAL, Det, Function, LogProb, Record, Sample, outcome
from scg.probes.known import ELEMENTWISE


def user_function(record: Record) -> Function | None:
    """Return the function a user gave to a node, or None where there is none to be probed.

    Distribution classes with laws of their own act on every element alike and need no probe.
    """
    if isinstance(record, Det):
        return record.fn
    function = record.dist if isinstance(record, (Sample, LogProb)) else None
    return None if function is None or listed(function.call, LAWS) else function


def is_elementwise(record: Record) -> bool:
    """Say whether a node is an operation that is known to act on every element alike."""
    if not isinstance(record, Det) or record.fn.call is None or record.differentiable is False:
        return False
    return record.fn.call in STRUCTURAL or listed(record.fn.call, ELEMENTWISE)


def listed(fn: Any, table: Any) -> bool:
    """Say whether a callable, which need not be hashable, stands in a table."""
    return getattr(fn, "__hash__", None) is not None and fn in table


def transform_of(record: Record) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:
    """Return what makes a user's function one from tensors to tensors, or None where it is one.

    A black box is detached, unless it is known to take tensors; a factory of distributions becomes that of
    their parameters.
    """
    if not isinstance(record, Det):
        return lambda fn: partial(_parameters, fn)
    if record.fn.call is outcome:
        return None
    return (lambda fn: partial(_boxed, fn)) if record.differentiable is False else None


def _parameters(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    return taken_apart(fn(*args, **kwargs))[1]


def _boxed(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return black_box(fn, args, kwargs)


def runner(ir: IR, record: Record) -> Callable[..., Any]:
    """Return the call of a node as a function from argument values to tensors."""
    function = user_function(record)
    assert function is not None
    fn, transform = callable_of(ir, function), transform_of(record)
    return fn if transform is None else transform(fn)


def held_by(ir: IR, record: Record) -> list[Tensor]:
    """Return the parameters that a node's function holds or captures."""
    function = user_function(record)
    owner = function.owner if function is not None else None
    keys = (*(() if owner is None else (owner,)), *ir.store.reached.get(record.name, ()))
    several: list[Tensor] = []
    for key in keys:
        held = ir.store.modules.get(key)
        several += [ir.store.tensors[key]] if held is None and key in ir.store.tensors else []
        several += [] if held is None else list(held.parameters())
    return list({id(tensor): tensor for tensor in several}.values())


def signature(ir: IR, trace: Trace, record: Record) -> tuple[Any, ...]:
    """Return a key that equal calls share: the function, its constants, its parents' shapes and plates."""
    function = user_function(record)
    assert function is not None

    def shape(name: str) -> Any:
        return pytree.tree_map_only(
            Tensor, lambda tensor: (tuple(tensor.shape), tensor.dtype), trace.values[name]
        ), ir.layout[name]

    constants = repr(record.arguments.substitute(shape))
    flag = record.differentiable if isinstance(record, Det) else None
    return function.owner or id(function.call), constants, ir.layout[record.name], flag


def leaves_of(values: Mapping[str, Any], record: Record) -> list[Any]:
    """Return what the parents of a node hold, flat."""
    return pytree.tree_leaves({name: values[name] for name in record.arguments.names})


def of_leaves(ir: IR, trace: Trace, record: Record) -> Callable[[list[Any]], Any]:
    """Return the function of a node as one of what its parents hold, flat."""
    fn = runner(ir, record)
    spec = pytree.tree_structure({name: trace.values[name] for name in record.arguments.names})

    def call(leaves: list[Any]) -> Any:
        values = pytree.tree_unflatten(leaves, spec)
        args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, values[name]))
        return fn(*args, **kwargs)

    return call
