"""Twins: functions of torch that are read instead of functions that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from scg.errors import GraphError
from scg.nodes.ir import IR
from scg.nodes.records import Det, Function

TWINS: dict[Callable[..., Any], Callable[..., Any]] = {}


def register(fn: Callable[..., Any], twin: Callable[..., Any] | None = None) -> Any:
    """Have a ``twin``, made of torch's operations, be read where a node calls ``fn``.

    As a decorator, ``@scg.symbolic.register(fn)``, it takes the function below. What is read is held against
    ``fn`` itself, in value, before it is believed.

    >>> import numpy, torch, scg
    >>> def cost(b):
    ...     return torch.as_tensor(numpy.square(b.numpy() - 0.5))
    >>> @scg.symbolic.register(cost)
    ... def twin(b):
    ...     return (b - 0.5) ** 2
    """
    if twin is None:
        return lambda found: register(fn, found) and found
    if not callable(fn) or not callable(twin):
        raise GraphError(f"a twin is a function for a function, not {twin!r} for {fn!r}")
    TWINS[fn] = twin
    return twin


def twinned(ir: IR) -> IR:
    """Return a graph in which nodes call the twins of their functions, where these have one."""
    calls = {name: ir[name].fn.call for name in ir if isinstance(ir[name], Det)}  # type: ignore[attr-defined]
    if not any(call in TWINS for call in calls.values() if callable(call)):
        return ir
    dag = ir.dag.copy()
    for name, call in calls.items():
        if call in TWINS:
            record = ir[name]
            assert isinstance(record, Det)
            dag.nodes[name]["record"] = replace(record, fn=Function(TWINS[call], label=record.fn.label))
    return replace(ir, dag=dag)
