"""One torch.fx graph under construction, written with the graph's own names."""

from __future__ import annotations

import operator
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from scg.surrogate.ops import add_all, named

MANY = 8
ADD_ALL = named("add_all", add_all)


class Emitter:
    """A thin layer over ``fx.Graph``: every method appends one line and returns its value."""

    def __init__(self) -> None:
        """Start an empty function."""
        self.graph = fx.Graph()
        self.places: dict[str, str] = {}
        self._indexed: dict[tuple[fx.Node, str], fx.Node] = {}
        self._ops: dict[Any, Callable[..., Any]] = {}

    def argument(self, name: str) -> fx.Node:
        """Append a parameter of the function."""
        node = self.graph.placeholder(name)
        node.target = node.name  # of a name already taken, fx would read what is now held under it
        return node

    def held(self, target: str) -> fx.Node:
        """Read a tensor or module that the program holds."""
        owner, _, last = target.rpartition(".")
        return self.graph.create_node(
            "get_attr", target, name=f"{last}_controls" if owner == "controls" else last
        )

    def module(self, target: str, args: Sequence[Any], kwargs: dict[str, Any], name: str) -> fx.Node:
        """Call a module that the program holds."""
        return self.graph.create_node("call_module", target, tuple(args), kwargs, name=name)

    def call(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call a function."""
        return self.graph.create_node("call_function", fn, args, kwargs, name=name)

    def placed(self, node: str, value: fx.Node) -> fx.Node:
        """Note that a line is the doing of a node, for errors."""
        self.places[value.name] = node
        return value

    def method(self, method: str, *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call a Tensor method on the first argument."""
        return self.graph.create_node("call_method", method, args, kwargs, name=name)

    def shown(self, label: str, key: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` under the name ``label``, the same object for the same key."""
        if (label, key) not in self._ops:
            self._ops[label, key] = named(label, fn)
        return self._ops[label, key]

    def index(self, value: fx.Node, index: tuple[Any, ...] | None) -> fx.Node:
        """Index a tensor, once for each index; None is the tensor itself."""
        if not index:
            return value
        key = value, repr(index)
        if key not in self._indexed:
            self._indexed[key] = self.call(operator.getitem, value, index, name=value.name)
        return self._indexed[key]

    def add(self, terms: Sequence[fx.Node], name: str) -> fx.Node:
        """Add terms of one shape, in one operation where there are many."""
        if len(terms) > MANY:
            return self.call(ADD_ALL, list(terms), name=name)
        total = terms[0]
        for term in terms[1:]:
            total = self.call(operator.add, total, term, name=name)
        return total


def is_library(fn: Callable[..., Any]) -> bool:
    """Say whether a callable is one of torch or Python that emitted code can name."""
    if isinstance(fn, (types.MethodDescriptorType, types.WrapperDescriptorType)):
        return getattr(torch.Tensor, fn.__name__, None) is fn
    module = getattr(fn, "__module__", None) or ""
    return isinstance(fn, (types.BuiltinFunctionType, types.FunctionType)) and (
        module in ("_operator", "builtins", "torch") or module.startswith("torch.")
    )
