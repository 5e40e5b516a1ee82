"""Captured: modules and parameters that functions of a graph reach without declaring them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from scg.analysis.reach import reach
from scg.nodes.ir import CAPTURED, Store
from scg.nodes.names import RESERVED
from scg.nodes.records import Det, LogProb, Record, Sample


@dataclass(eq=False)
class Search:
    """What the functions of a graph reach, node by node, and the names under which programs hold it.

    ``keys`` has, by identity, the name of each module or parameter that is held, or is a part of what is.
    """

    keys: dict[int, str] = field(default_factory=dict)
    found: list[tuple[Record, str, Any]] = field(default_factory=list)
    by_node: dict[str, list[Any]] = field(default_factory=dict)
    known: dict[int, list[tuple[str, Any]]] = field(default_factory=dict)

    def hold(self, key: str, value: Any) -> None:
        """Note that a program holds a tensor, or a module with all of its parts, under a name."""
        several = (*value.modules(), *value.parameters()) if isinstance(value, nn.Module) else (value,)
        for part in several:
            self.keys.setdefault(id(part), key)

    def visit(self, record: Record) -> None:
        """Note what the functions of a node, and the callables among its arguments, reach."""
        for root in _roots(record):
            if id(root) not in self.known:
                self.known[id(root)] = list(reach(root))
            for name, value in self.known[id(root)]:
                self.found.append((record, name, value))
                self.by_node.setdefault(record.name, []).append(value)

    def taken(self) -> Iterator[tuple[str, Any]]:
        """Yield what a program has to hold besides, each once: no part of something else that is held."""
        outer = {id(value): (record, name, value) for record, name, value in reversed(self.found)}
        modules = [value for _, _, value in outer.values() if isinstance(value, nn.Module)]
        inner = {id(part) for module in modules for part in _parts(module)}
        names: set[str] = set()
        for record, name, value in reversed(list(outer.values())):
            is_held = isinstance(value, (nn.Module, nn.Parameter))
            if is_held and id(value) not in inner and id(value) not in self.keys:
                key = _fresh(f"{CAPTURED}.{record.name}.{_usable(name)}", names)
                names.add(key)
                yield key, value

    def lost(self) -> Iterator[str]:
        """Say what is captured and differentiated, but cannot be held."""
        named: set[int] = set()
        for record, name, value in self.found:
            if isinstance(value, (nn.Module, nn.Parameter)) or id(value) in named:
                continue
            named.add(id(value))
            kind = "has a gradient history" if value.grad_fn is not None else "is no nn.Parameter"
            yield (
                f"node '{record.name}' ({record.where}) captures the tensor '{name}', which requires a "
                f"gradient but {kind}: the program cannot save, move or train it. Declare it with g.param, "
                "or what computes it as nodes"
            )


def with_captured(store: Store, records: Iterable[Record]) -> Store:
    """Return a store that also has what the functions of nodes capture, by the name of the first node."""
    search = Search()
    for key, value in (*store.tensors.items(), *store.modules.items()):
        search.hold(key, value)
    for record in records:
        search.visit(record)
    if not search.found:
        return store
    taken = dict(search.taken())
    for key, value in taken.items():
        search.hold(key, value)
    reached = {
        name: tuple(dict.fromkeys(search.keys[id(value)] for value in values if id(value) in search.keys))
        for name, values in search.by_node.items()
    }
    modules = {key: value for key, value in taken.items() if isinstance(value, nn.Module)}
    tensors = {key: value for key, value in taken.items() if isinstance(value, Tensor)}
    return replace(
        store,
        tensors={**store.tensors, **tensors},
        modules={**store.modules, **modules},
        reached=reached,
        lost=tuple(search.lost()),
    )


def declared_part(store: Store) -> Store:
    """Return a store without what functions capture."""
    inner = f"{CAPTURED}."
    return Store(
        {key: value for key, value in store.tensors.items() if not key.startswith(inner)},
        {key: value for key, value in store.modules.items() if not key.startswith(inner)},
        store.examples,
    )


def captures(fn: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters, and of the modules with parameters, that a function captures."""
    return [name for name, value in reach(fn) if isinstance(value, Tensor) or _parts(value)]


def _roots(record: Record) -> Iterator[Any]:
    """Yield what a node calls, and what among its arguments may be called or hold parameters."""
    if isinstance(record, Det):
        yield record.fn.call
        yield record.relaxed
    elif isinstance(record, (Sample, LogProb)) and record.dist is not None:
        yield record.dist.call
    yield from (leaf for leaf in record.arguments.constants() if callable(leaf))


def _parts(module: nn.Module) -> list[Any]:
    """Return the modules and parameters inside a module."""
    return [*(part for part in module.modules() if part is not module), *module.parameters()]


def _usable(name: str) -> str:
    """Return a name under which a module can hold something."""
    clean = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "value"
    clean = clean if clean.isidentifier() else f"_{clean}"
    return f"{clean}_" if clean in RESERVED else clean


def _fresh(key: str, taken: set[str]) -> str:
    """Return a name that is not taken, with a number at its end where need be."""
    count, fresh = 1, key
    while fresh in taken:
        count += 1
        fresh = f"{key}_{count}"
    return fresh
