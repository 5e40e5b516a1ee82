"""Trees: values that nest tensors, in what torch's pytrees know, in dataclasses and in mappings of any type.

The functions are those of ``torch.utils._pytree``, which takes a dataclass for a leaf.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

MAPPINGS = (dict, UserDict)
STARTS = (dict.__init__, OrderedDict.__init__, defaultdict.__init__)
PLAIN = frozenset({Tensor, int, float, bool, complex, str, bytes, type(None)})


def members(value: Any) -> dict[Any, Any] | None:
    """Return the parts of a dataclass or mapping that torch takes for a leaf; None for every other leaf."""
    if type(value) in PLAIN or isinstance(value, (Tensor, type, nn.Module)):
        return None
    if isinstance(value, MAPPINGS):
        return dict(value)
    if not is_dataclass(value):
        return None
    named = {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}
    derived = {key: part for key, part in _held(value).items() if not _is_cached(value, key)}
    return {**named, **derived}


def _held(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = getattr(value, "__dict__", {})
    return found


def _is_cached(value: Any, key: str) -> bool:
    """Say whether an attribute was computed from the others, which are about to change."""
    return isinstance(getattr(type(value), key, None), cached_property)


def rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    """Return a dataclass or mapping like ``value`` with other parts, frozen or not, without calling it."""
    made = _copied(value)
    is_mapping = isinstance(made, MAPPINGS)
    for key in [key for key in _held(made) if _is_cached(made, key)]:
        del _held(made)[key]
    for key, part in parts.items():
        if isinstance(made, dict):
            (OrderedDict if isinstance(made, OrderedDict) else dict).__setitem__(made, key, part)
        elif is_mapping:
            made[key] = part
        if not is_mapping or key in _held(made):
            object.__setattr__(made, key, part)
    return made


def _copied(value: Any) -> Any:
    """Return a copy, of a dict that asks for arguments an empty one."""
    if not isinstance(value, dict) or type(value).__init__ in STARTS:
        return copy.copy(value)
    made = type(value).__new__(type(value))
    _held(made).update(_held(value))
    return made


def tree_map(fn: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Replace every leaf by ``fn`` of it, and of those in its place in ``others``."""

    def at(leaf: Any, *alike: Any) -> Any:
        parts = members(leaf)
        if parts is None:
            return fn(leaf, *alike)
        rest = [members(other) or {} for other in alike]
        return rebuilt(leaf, {k: tree_map(fn, part, *(r[k] for r in rest)) for k, part in parts.items()})

    return at(tree, *others) if isinstance(tree, Tensor) else pytree.tree_map(at, tree, *others)


def tree_map_only(kind: type | tuple[type, ...], fn: Callable[[Any], Any], tree: Any) -> Any:
    """Replace every leaf of a type by ``fn`` of it."""
    return tree_map(lambda leaf: fn(leaf) if isinstance(leaf, kind) else leaf, tree)


def tree_leaves(tree: Any) -> list[Any]:
    """Return every leaf, left to right."""
    found: list[Any] = []
    for leaf in pytree.tree_leaves(tree):
        parts = members(leaf)
        if parts is None:
            found.append(leaf)
        else:
            for part in parts.values():
                found += tree_leaves(part)
    return found


def tree_structure(tree: Any) -> Any:
    """Return what ``tree_unflatten`` needs besides leaves: any tree of that structure."""
    return tree


def tree_flatten(tree: Any) -> tuple[list[Any], Any]:
    """Return every leaf, and what ``tree_unflatten`` needs to build the tree from leaves."""
    return tree_leaves(tree), tree


def tree_unflatten(leaves: list[Any], structure: Any) -> Any:
    """Build a tree of the structure of another from leaves."""
    waiting = iter(leaves)
    return tree_map(lambda _: next(waiting), structure)


def tensors(tree: Any) -> list[Tensor]:
    """Return the tensors of a tree, left to right."""
    if isinstance(tree, Tensor):
        return [tree]
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def needs_gradient(tree: Any) -> bool:
    """Say whether a tensor of a tree requires a gradient."""
    return any(tensor.requires_grad for tensor in tensors(tree))


def children(value: Any) -> dict[Any, Any] | None:
    """Return what a value directly consists of, by key, or None for a leaf.

    >>> children({"ids": 1, "mask": [2]}), children(3)
    ({'ids': 1, 'mask': [2]}, None)
    """
    if type(value) in PLAIN or isinstance(value, Tensor):
        return None
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: getattr(value, name) for name in value._fields}
    if isinstance(value, (list, tuple)):
        return dict(enumerate(value))
    parts = members(value)
    if parts is not None:
        return parts
    inside = pytree.tree_leaves(value, is_leaf=lambda item: item is not value)
    return None if len(inside) == 1 and inside[0] is value else dict(enumerate(inside))


def with_children(value: Any, parts: dict[Any, Any]) -> Any:
    """Return a value like another, which has ``children``, that consists of other parts."""
    several = list(parts.values())
    if type(value) is dict:
        return dict(parts)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*several)
    if isinstance(value, (list, tuple)):
        return type(value)(several)
    if isinstance(value, MAPPINGS) or is_dataclass(value):
        return rebuilt(value, parts)
    _, spec = pytree.tree_flatten(value, is_leaf=lambda item: item is not value)
    return pytree.tree_unflatten(several, spec)


def placed_leaves(name: str, tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield every leaf with the expression that reads it.

    >>> list(placed_leaves("batch", {"ids": 1, "pair": (2, 3)}))
    [("batch['ids']", 1), ("batch['pair'][0]", 2), ("batch['pair'][1]", 3)]
    """
    waiting: list[tuple[str, Any]] = [(name, tree)]
    while waiting:
        path, value = waiting.pop()
        parts = children(value)
        if parts is None:
            yield path, value
        else:
            waiting += reversed([(path + _step(value, key), part) for key, part in parts.items()])


def tree_map_placed(fn: Callable[[str, Tensor], Tensor], name: str, tree: Any) -> Any:
    """Replace every tensor by ``fn`` of the expression that reads it, and of it."""
    if isinstance(tree, Tensor):
        return fn(name, tree)
    parts = children(tree)
    if parts is None:
        return tree
    return with_children(
        tree, {k: tree_map_placed(fn, name + _step(tree, k), part) for k, part in parts.items()}
    )


def _step(value: Any, key: Any) -> str:
    is_field = isinstance(value, tuple) and hasattr(value, "_fields")
    has_fields = is_field or (is_dataclass(value) and not isinstance(value, MAPPINGS))
    return f".{key}" if has_fields else f"[{key!r}]"
