"""The arguments of a node: nested lists, tuples and dicts whose leaves are numbers or names of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Ref:
    """A parent, by name."""

    name: str


def substitute(template: Any, leaf: Callable[[str], Any]) -> Any:
    """Replace every ``Ref`` in a nested template by ``leaf(name)``.

    >>> substitute([Ref("a"), {"k": (Ref("b"), 2)}], str.upper)
    ['A', {'k': ('B', 2)}]
    """
    if isinstance(template, Ref):
        return leaf(template.name)
    if isinstance(template, tuple) and hasattr(template, "_fields"):
        return type(template)(*(substitute(item, leaf) for item in template))
    if isinstance(template, (list, tuple)):
        return type(template)(substitute(item, leaf) for item in template)
    if isinstance(template, dict):
        return {key: substitute(item, leaf) for key, item in template.items()}
    if isinstance(template, slice):
        return slice(*(substitute(item, leaf) for item in (template.start, template.stop, template.step)))
    return template


def spelled(name: str, value: Any, leaf: Callable[[str, Any], Any]) -> Any:
    """Turn nested arguments into a template: ``leaf(name, item)`` spells each item, named by its place.

    >>> spelled("h", [1, {"k": 2}], lambda name, item: f"{name}={item}")
    ['h_0=1', {'k': 'h_1_k=2'}]
    """
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(spelled(f"{name}_{key}", getattr(value, key), leaf) for key in value._fields))
    if isinstance(value, (list, tuple)):
        return type(value)(spelled(f"{name}_{index}", item, leaf) for index, item in enumerate(value))
    if isinstance(value, dict):
        return {key: spelled(f"{name}_{key}", item, leaf) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(spelled(f"{name}_{k}", getattr(value, k), leaf) for k in ("start", "stop", "step")))
    return leaf(name, value)


def references(template: Any) -> Iterator[str]:
    """Yield the name of every ``Ref`` in a nested template, left to right."""
    if isinstance(template, Ref):
        yield template.name
    elif isinstance(template, (list, tuple)):
        for item in template:
            yield from references(item)
    elif isinstance(template, dict):
        for item in template.values():
            yield from references(item)
    elif isinstance(template, slice):
        yield from references((template.start, template.stop, template.step))


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
