"""Captured parameters: tensors and modules that functions of a graph reach without declaring them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from scg.analysis.calls import user_function
from scg.nodes.ir import IR
from scg.nodes.records import Record


def captured(ir: IR) -> Iterator[tuple[str, str]]:
    """Yield (node, description) for each parameter or module that a node's function captures."""
    held = {id(tensor) for tensor in ir.store.tensors.values()}
    held |= {id(part) for module in ir.store.modules.values() for part in module.modules()}
    for record in ir.records():
        function = user_function(record)
        if function is None or function.call is None:
            continue
        for name, value in _reached(function.call):
            if id(value) not in held:
                kind = "module" if isinstance(value, nn.Module) else "parameter"
                yield record.name, f"the {kind} '{name}'"


def held_by(ir: IR, record: Record) -> list[Tensor]:
    """Return the parameters that a node's function holds or captures."""
    function = user_function(record)
    if function is None:
        return []
    if function.call is None:
        return list(ir.store.modules[function.owner or ""].parameters())
    reached = [value for _, value in _reached(function.call)]
    several = [list(v.parameters()) if isinstance(v, nn.Module) else [v] for v in reached]
    return list({id(tensor): tensor for group in several for tensor in group}.values())


def captures(fn: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters and modules that a function captures."""
    return [name for name, _ in _reached(fn)]


def _reached(fn: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a function reaches by closure, default, global name, partial or as a bound method."""
    if isinstance(fn, functools.partial):
        yield from _learnable(dict(enumerate(fn.args)) | fn.keywords)
        fn = fn.func
    if inspect.ismethod(fn):
        yield from _learnable({type(fn.__self__).__name__: fn.__self__})
        fn = fn.__func__
    if not inspect.isfunction(fn):
        return
    variables = inspect.getclosurevars(fn)
    yield from _learnable({**variables.nonlocals, **variables.globals})
    yield from _learnable(dict(enumerate(fn.__defaults__ or ())))


def _learnable(found: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        parts = value.parameters() if isinstance(value, nn.Module) else (value,)
        if any(isinstance(part, Tensor) and part.requires_grad for part in parts):
            yield str(name), value
