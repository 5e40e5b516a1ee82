"""One torch.fx graph under construction, written with the graph's own names."""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx

from scg.nodes.arguments import parts_of, with_parts
from scg.surrogate.runtime.ops import add_all, indexed, named

MANY = 8
WRITABLE = (fx.Node, int, float, complex, str, type(None), type(...), torch.dtype, torch.device, torch.layout)
ADD_ALL = named("add_all", add_all)


@dataclass(frozen=True, eq=False)
class Part:
    """What a line calls that computes for one node: a slice or an estimator, which has no name elsewhere.

    ``label`` is what a watch knows it by, ``key`` that of the view whose estimator it is, if not the node,
    and ``half`` what of a plate it is for, if not for all. A slice has ``pieces``, functions with the values
    that they take last, and all of these as ``captured``; ``rest`` is the label of the slice that its later
    pieces are.
    """

    node: str
    label: str
    key: str = ""
    pieces: tuple[tuple[fx.GraphModule, tuple[fx.Node, ...]], ...] = ()
    captured: tuple[fx.Node, ...] = ()
    rest: str | None = None
    half: str = ""

    @property
    def owner(self) -> str:
        """What lines of the view are called after."""
        return (self.key or self.node).replace(".", "_") + self.half


class Emitter:
    """A thin layer over ``fx.Graph``: every method appends one line and returns its value."""

    def __init__(self) -> None:
        """Start an empty function."""
        self.graph = fx.Graph()
        self.places: dict[str, str] = {}
        self.parts: dict[str, Part] = {}
        self._indexed: dict[tuple[fx.Node, str], fx.Node] = {}
        self._written: dict[tuple[str, Any], fx.Node] = {}
        self._ops: dict[Any, Callable[..., Any]] = {}

    def argument(self, name: str) -> fx.Node:
        """Append a parameter of the function."""
        node = self.graph.placeholder(name)
        node.target = node.name  # of a name already taken, fx would read what is now held under it
        return node

    def held(self, target: str, ending: str = "") -> fx.Node:
        """Read a tensor or module that the program holds, in a line whose name has that ending."""
        owner, _, last = target.rpartition(".")
        ending = "_controls" if owner == "controls" else ending
        return self.graph.create_node("get_attr", target, name=f"{last}{ending}")

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

    def part(self, value: fx.Node, part: Part) -> fx.Node:
        """Note that a line calls a slice, or what an estimator computes."""
        self.parts[value.name] = part
        return value

    def once(self, what: str, key: Any, write: Callable[[], fx.Node]) -> fx.Node:
        """Return the line that was written for a key, or write it: for lines that give the same each time."""
        if (what, key) not in self._written:
            self._written[what, key] = write()
        return self._written[what, key]

    def method(self, method: str, *args: Any, name: str | None = None, **kwargs: Any) -> fx.Node:
        """Call a Tensor method on the first argument."""
        return self.graph.create_node("call_method", method, args, kwargs, name=name)

    def shown(self, label: str, key: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` under the name ``label``, the same object for the same key."""
        if (label, key) not in self._ops:
            self._ops[label, key] = named(label, fn)
        return self._ops[label, key]

    def index(self, value: fx.Node, index: tuple[Any, ...] | None, *, nested: bool = False) -> fx.Node:
        """Index a tensor, or all in a container, once for each index; None leaves it as it is."""
        if not index:
            return value
        key = value, repr(index)
        if key not in self._indexed:
            fn = self.shown("indexed", None, indexed) if nested else operator.getitem
            self._indexed[key] = self.call(fn, value, index, name=value.name)
        return self._indexed[key]

    def argument_of(self, value: Any) -> Any:
        """Return an argument of a user's call as torch.fx can write it; a line builds what it cannot."""
        if isinstance(value, WRITABLE):
            return value
        parts = parts_of(value)
        if parts is None:
            made = self.shown(type(value).__name__, id(value), partial(_itself, value))
            return self.call(made, name=type(value).__name__.lower())
        inner = {key: self.argument_of(part) for key, part in parts.items()}
        is_written = type(value) in (list, tuple, slice) or (
            type(value) is dict and all(isinstance(key, (str, int)) for key in value)
        )
        if is_written:
            return with_parts(value, inner)
        build = self.shown(type(value).__name__, id(value), partial(_built, value, tuple(parts)))
        return self.call(build, *inner.values(), name=type(value).__name__.lower())

    def add(self, terms: Sequence[fx.Node], name: str) -> fx.Node:
        """Add terms of one shape, in one operation where there are many."""
        if len(terms) > MANY:
            return self.call(ADD_ALL, list(terms), name=name)
        total = terms[0]
        for term in terms[1:]:
            total = self.call(operator.add, total, term, name=name)
        return total


def is_library(fn: Callable[..., Any]) -> bool:
    """Say whether a callable is one of torch or Python that emitted code can name.

    What torch makes of a user's function, as ``torch.vmap`` does, has the name of that but is none.
    """
    if isinstance(fn, (types.MethodDescriptorType, types.WrapperDescriptorType)):
        return getattr(torch.Tensor, fn.__name__, None) is fn
    module = getattr(fn, "__module__", None) or ""
    is_named = module in ("_operator", "builtins", "torch") or module.startswith("torch.")
    if isinstance(fn, types.BuiltinFunctionType):
        return is_named and not isinstance(fn.__self__, torch.Tensor)
    if not isinstance(fn, types.FunctionType) or not is_named:
        return False
    return getattr(sys.modules.get(module), fn.__name__, None) is fn


def _itself(value: Any) -> Any:
    return value


def _built(like: Any, keys: tuple[Any, ...], *parts: Any) -> Any:
    return with_parts(like, dict(zip(keys, parts, strict=True)))
