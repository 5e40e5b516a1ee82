"""The arguments of a node: nested containers whose leaves are numbers or names of nodes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError
from scg.nodes.trees import children, with_children

BOUNDS = ("start", "stop", "step")
ODD = re.compile(r"\W+")


@dataclass(frozen=True)
class Ref:
    """A parent, by name."""

    name: str


def parts_of(template: Any) -> dict[Any, Any] | None:
    """Return what a nested template directly consists of, by key, or None for a leaf."""
    if isinstance(template, Ref):
        return None
    if isinstance(template, slice):
        return {bound: getattr(template, bound) for bound in BOUNDS}
    return children(template)


def with_parts(template: Any, parts: dict[Any, Any]) -> Any:
    """Return a nested template like another, that consists of other parts."""
    if isinstance(template, slice):
        return slice(*parts.values())
    return with_children(template, parts)


def substitute(template: Any, leaf: Callable[[str], Any]) -> Any:
    """Replace every ``Ref`` in a nested template by ``leaf(name)``.

    >>> substitute([Ref("a"), {"k": (Ref("b"), 2)}], str.upper)
    ['A', {'k': ('B', 2)}]
    """
    if isinstance(template, Ref):
        return leaf(template.name)
    parts = parts_of(template)
    if parts is None:
        return template
    return with_parts(template, {key: substitute(part, leaf) for key, part in parts.items()})


def spelled(name: str, value: Any, leaf: Callable[[str, Any], Any]) -> Any:
    """Turn nested arguments into a template: ``leaf(name, item)`` spells each item, named by its place.

    >>> spelled("h", [1, {"k.0": 2}], lambda name, item: f"{name}={item}")
    ['h_0=1', {'k.0': 'h_1_k_0=2'}]
    """
    parts = parts_of(value)
    if parts is None:
        return leaf(name, value)
    inner = {key: f"{name}_{ODD.sub('_', str(key)).strip('_')}" for key in parts}
    return with_parts(value, {key: spelled(inner[key], part, leaf) for key, part in parts.items()})


def exemplary(name: str, example: Any) -> Any:
    """Return an example of an input with a tensor for every leaf; lists of numbers are tensors."""
    parts = children(example)
    if parts is None or (isinstance(example, (list, tuple)) and not any(map(_is_nested, parts.values()))):
        try:
            return torch.as_tensor(example)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(example).__name__
            raise GraphError(
                f"the example of input '{name}' is a {kind}: give a tensor, or a dict of them"
            ) from error
    return with_children(example, {key: exemplary(name, part) for key, part in parts.items()})


def _is_nested(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and not hasattr(value, "_fields")
    return (isinstance(value, Tensor) and value.dim() > 0) or (not is_list and children(value) is not None)


def references(template: Any) -> Iterator[str]:
    """Yield the name of every ``Ref`` in a nested template, left to right."""
    if isinstance(template, Ref):
        yield template.name
        return
    for part in (parts_of(template) or {}).values():
        yield from references(part)


def constants(template: Any) -> Iterator[Any]:
    """Yield every leaf of a nested template that is no ``Ref``, left to right."""
    if isinstance(template, Ref):
        return
    parts = parts_of(template)
    if parts is None:
        yield template
        return
    for part in parts.values():
        yield from constants(part)


@dataclass(frozen=True, eq=False)
class Arguments:
    """Positional and keyword arguments of one call."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes referred to, each once."""
        return tuple(dict.fromkeys((*references(self.args), *references(dict(self.kwargs)))))

    def substitute(self, leaf: Callable[[str], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return ``(args, kwargs)`` with every reference replaced by ``leaf(name)``."""
        args = tuple(substitute(item, leaf) for item in self.args)
        return args, {key: substitute(item, leaf) for key, item in self.kwargs.items()}

    def constants(self) -> Iterator[Any]:
        """Yield every leaf that is no reference."""
        for item in (*self.args, *self.kwargs.values()):
            yield from constants(item)
