"""Reach: the modules and tensors that a callable gets at by closure, default, attribute or global name."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution, Transform

LIBRARIES = sys.stdlib_module_names | {"torch", "functorch", "numpy", "scipy", "pandas", "networkx", "scg"}
DYNAMIC = frozenset({"getattr", "vars", "__dict__"})
ATOMS = (str, bytes, int, float, complex, type(None), types.CodeType)


def reach(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) for every module, parameter and tensor with a gradient that a callable reaches.

    Attributes of objects count where some function on the way reads one of their name; functions of
    libraries are not looked into, only what they close over.
    """
    walk = Walk()
    walk.push(_named(root), root)
    if isinstance(root, type) and not _is_library(root.__module__):
        walk.names.update(vars(root))
    while walk.waiting:
        yield from walk.step(*walk.waiting.popleft())
        if not walk.waiting:
            walk.push_attributes()


@dataclass(eq=False)
class Walk:
    """One walk from a callable: what waits, what was seen, and which attributes functions read."""

    waiting: deque[tuple[str, Any]] = field(default_factory=deque)
    seen: dict[int, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    objects: list[tuple[str, Any, set[str]]] = field(default_factory=list)

    def push(self, name: str, value: Any) -> None:
        """Look at a value later, unless it was met already."""
        if not isinstance(value, ATOMS) and id(value) not in self.seen:
            self.seen[id(value)] = value
            self.waiting.append((name, value))

    def step(self, name: str, value: Any) -> Iterator[tuple[str, Any]]:
        """Look at one value: yield what is to be held, or note what it leads to."""
        if isinstance(value, Tensor):
            is_learned = isinstance(value, nn.Parameter) or value.requires_grad
            yield from ((name, value),) if is_learned else ()
        elif isinstance(value, nn.Module):
            yield name, value
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, (types.MethodType, types.BuiltinMethodType)):
            self._method(value)
        elif isinstance(value, functools.partial):
            self._items({**dict(enumerate(value.args)), **value.keywords}, "")
            self.push(_named(value.func), value.func)
        elif isinstance(value, (list, tuple, set, frozenset)):
            self._items(dict(enumerate(value)), name)
        elif isinstance(value, Mapping):
            self._items(value, name)
        else:
            self._object(name, value)

    def push_attributes(self) -> None:
        """Look at the attributes of the objects met that functions read, as far as these are known by now."""
        for name, value, done in self.objects:
            for key, part in _attributes(value, self.names):
                if key not in done:
                    done.add(key)
                    self.push(key if not key.startswith("__") else name, part)

    def _items(self, items: Mapping[Any, Any], name: str) -> None:
        for key, item in items.items():
            own = isinstance(key, str) and not name
            self.push(key if own else _named(item) if not name else f"{name}_{key}", item)

    def _method(self, value: Any) -> None:
        owner = value.__self__
        if not isinstance(owner, (types.ModuleType, type)) or isinstance(value, types.MethodType):
            self.push(_named(owner), owner)
        self.push(value.__name__, getattr(value, "__func__", None))

    def _function(self, fn: types.FunctionType) -> None:
        """Follow closure, defaults and attributes, and the global names that the code of a user reads."""
        is_library = _is_library(fn.__globals__.get("__name__"))
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            value = _content(cell)
            self.push(_named(value) if is_library else name, value)
        positional = fn.__code__.co_varnames[: fn.__code__.co_argcount]
        defaults = fn.__defaults__ or ()
        self._items(dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True)), "")
        self._items(fn.__kwdefaults__ or {}, "")
        if is_library:
            return
        self._items(vars(fn), "")
        names, attributes, imported = _read(fn.__code__)
        self.names |= attributes | (names & DYNAMIC)
        for name in sorted(names & fn.__globals__.keys()):
            self.push(name, fn.__globals__[name])
        for name in sorted(imported):
            self.push(name, sys.modules.get(name))

    def _object(self, name: str, value: Any) -> None:
        """Note an object whose attributes functions may read; a distribution reads all of its own."""
        if isinstance(value, (Distribution, Transform)):
            self._items(vars(value), "")
        is_namespace = isinstance(value, (type, types.ModuleType))
        home = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if not _is_library(home if is_namespace else type(value).__module__):
            self.objects.append((name, value, set()))
            self.names.add("__call__")


def _attributes(value: Any, names: set[str]) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of an object that are read by name, without running any of its code."""
    held = getattr(value, "__dict__", {}) if isinstance(value, (type, types.ModuleType)) else _held(value)
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    is_dynamic = not names.isdisjoint(DYNAMIC) and not isinstance(value, (type, types.ModuleType))
    for name in list(held) if is_dynamic else names:
        if name in held:
            yield name, _unwrapped(held[name])
        if isinstance(value, types.ModuleType):
            continue
        for kind in kinds:
            if name in vars(kind) and not _is_library(kind.__module__):
                yield name, _unwrapped(vars(kind)[name])
                break


def _held(value: Any) -> dict[str, Any]:
    """Return the attributes that an object holds itself, in its dictionary or in slots."""
    slots = [slot for kind in type(value).__mro__ for slot in _slots(kind)]
    found = {slot: object.__getattribute__(value, slot) for slot in slots if _has(value, slot)}
    return {**found, **getattr(value, "__dict__", {})}


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    names = (slots,) if isinstance(slots, str) else tuple(slots)
    return tuple(slot for slot in names if not slot.startswith("__"))


def _has(value: Any, slot: str) -> bool:
    try:
        object.__getattribute__(value, slot)
    except AttributeError:
        return False
    return True


def _unwrapped(value: Any) -> Any:
    """Return the function that a property or a static or class method calls."""
    for name in ("fget", "func", "__func__"):
        if isinstance(value, (property, functools.cached_property, staticmethod, classmethod)):
            value = getattr(value, name, value)
    return value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # of a name that is not bound yet
        return None


@functools.lru_cache(maxsize=4096)
def _read(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the global names, the attributes and the modules that code reads, nested code included."""
    found: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    for line in dis.get_instructions(code):
        if line.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            found[0].update({line.argval} if line.argval.isidentifier() else ())  # else a tool wrote it in
        elif "ATTR" in line.opname or "METHOD" in line.opname or line.opname == "IMPORT_FROM":
            found[1].add(str(line.argval))
        elif line.opname == "IMPORT_NAME":
            found[2].add(line.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            for mine, its in zip(found, _read(inner), strict=True):
                mine |= its
    return frozenset(found[0]), frozenset(found[1]), frozenset(found[2])


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in LIBRARIES


def _named(value: Any) -> str:
    """Return a name for a value that no variable names."""
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) and not isinstance(value, nn.Module) else type(value).__name__
