"""Surroundings: what a text needs besides its own lines, by name: imports, values and definitions."""

from __future__ import annotations

import ast
import builtins
import functools
import operator
import sys
import types
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from scg.export.spelling import is_method, public_name, spelled
from scg.testing.text.literals import NoTextError, literal, of_tensor, parsed
from scg.testing.text.source import Definition, source_of

LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "scipy", "scg"}
Kind = TypeVar("Kind", ast.Lambda, ast.FunctionDef)


@dataclass
class Surroundings:
    """Names that a text takes, its imports, and what it defines before its own lines.

    ``imports`` has the module of each name that is imported, and what it is called there, if it is no module.
    ``held`` has the name of what is defined already, by identity, with what it is of, which has to live on.
    """

    taken: set[str]
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: list[ast.stmt] = field(default_factory=list)
    held: dict[int, tuple[str, Any]] = field(default_factory=dict)

    def claim(self, wanted: str) -> str:
        """Take a name, or the next one like it that is free."""
        name, count = wanted, 1
        while name in self.taken or hasattr(builtins, name):
            count += 1
            name = f"{wanted}_{count}"
        self.taken.add(name)
        return name

    def write(self, value: Any, wanted: str = "value") -> ast.expr:
        """Return an expression for a value; what is not written in place is defined as ``wanted``.

        Raise ``NoTextError`` for what has no text.
        """
        if id(value) in self.held:
            return ast.Name(self.held[id(value)][0], ast.Load())
        if isinstance(value, Tensor):
            return self.define(value, of_tensor(value), wanted)
        if callable(value):
            return self.function(value, wanted)
        return self._literal(value, wanted)

    def _literal(self, value: Any, wanted: str) -> ast.expr:
        found = literal(value, functools.partial(self.write, wanted=wanted))
        if found is None:
            raise NoTextError(f"a {type(value).__name__}, which has no literal")
        return found

    def example(self, value: Any) -> ast.expr:
        """Return the value of an input in place, with all tensors in it."""
        if isinstance(value, Tensor):
            return of_tensor(value)
        found = literal(value, self.example)
        if found is None:
            raise NoTextError(f"a {type(value).__name__}, which has no literal")
        return found

    def define(self, value: Any, made: ast.expr, wanted: str) -> ast.expr:
        """Give a value a name in a row of its own."""
        self.need_torch()
        name = self.claim(wanted)
        self.held[id(value)] = name, value
        self.rows.append(ast.Assign([ast.Name(name, ast.Store())], made))
        return ast.Name(name, ast.Load())

    def function(self, fn: Callable[..., Any], wanted: str = "function") -> ast.expr:
        """Return an expression for a callable: imported, written in place, or defined before."""
        if isinstance(fn, functools.partial):
            head = self.imported("functools", "partial")
            several = [self.write(item) for item in fn.args]
            named = [ast.keyword(key, self.write(item, key)) for key, item in fn.keywords.items()]
            return ast.Call(head, [self.function(fn.func), *several], named)
        found = self.of_library(fn)
        if found is not None:
            return found
        if isinstance(fn, types.FunctionType):
            return self.written(fn, wanted)
        if isinstance(fn, nn.Module):
            raise NoTextError(f"a {type(fn).__name__}, a module, which has no source")
        raise NoTextError(f"{_shown(fn)}, which has no source")

    def of_library(self, fn: Any) -> ast.expr | None:
        """Return what torch, operators and other libraries have under a public name, or None."""
        name = f"torch.Tensor.{spelled(fn)}" if is_method(fn) else public_name(fn)
        if name is not None:
            name = f"torch.nn.functional{name[1:]}" if name.startswith("F.") else name
            if _at(torch, name.partition(".")[2]) is fn:
                self.need_torch()
                return parsed(name)
        module, path = getattr(fn, "__module__", None), getattr(fn, "__qualname__", "")
        module = "operator" if module == "_operator" else module
        if module == "builtins" and getattr(builtins, path, None) is fn and path not in self.taken:
            return ast.Name(path, ast.Load())
        if not module or module.partition(".")[0] not in LIBRARIES:
            return None
        module = next((room for room in _rooms(module) if _at(sys.modules.get(room), path) is fn), None)
        if module is None or "<" in path:
            return None
        if module == "operator":
            return self.attribute_of(operator, path)
        head, _, rest = path.partition(".")
        found = self.imported(module, head)
        return ast.Attribute(found, rest, ast.Load()) if rest else found

    def attribute_of(self, module: types.ModuleType, path: str) -> ast.expr:
        """Return what a module that is imported whole has."""
        return ast.Attribute(self.module(module, module.__name__), path, ast.Load())

    def module(self, module: types.ModuleType, wanted: str) -> ast.expr:
        """Return the name of an imported module."""
        if id(module) not in self.held:
            name = self.claim(wanted.replace(".", "_"))
            self.held[id(module)] = name, module
            self.imports[name] = module.__name__, ""
        return ast.Name(self.held[id(module)][0], ast.Load())

    def imported(self, module: str, wanted: str) -> ast.expr:
        """Return the name of something imported from a module."""
        value = getattr(sys.modules[module], wanted)
        if id(value) not in self.held:
            name = self.claim(wanted)
            self.held[id(value)] = name, value
            self.imports[name] = module, wanted
        return ast.Name(self.held[id(value)][0], ast.Load())

    def need_torch(self) -> None:
        """Import torch, whose name no node can have."""
        self.imports["torch"] = "torch", ""

    def head(self) -> list[ast.stmt]:
        """Return the imports: of modules, then of what they have, each in the order of the alphabet."""
        plain: list[ast.stmt] = []
        inside: dict[str, list[ast.alias]] = {}
        for name, (module, item) in sorted(self.imports.items()):
            if item:
                inside.setdefault(module, []).append(ast.alias(item, None if name == item else name))
            else:
                plain.append(ast.Import([ast.alias(module, None if name == module else name)]))
        return [*plain, *(ast.ImportFrom(module, several, 0) for module, several in sorted(inside.items()))]

    def written(self, fn: types.FunctionType, wanted: str) -> ast.expr:
        """Write a function by its source: a lambda in place, another before."""
        source = source_of(fn)
        if isinstance(source.tree, ast.Lambda):
            return self.bound(fn, source.tree, source.free)
        name = self.claim(fn.__name__)
        self.held[id(fn)] = name, fn
        tree = self.bound(fn, source.tree, source.free)
        tree.name = name
        self.rows.append(tree)
        return ast.Name(name, ast.Load())

    def bound(self, fn: types.FunctionType, tree: Kind, free: Mapping[str, Any]) -> Kind:
        """Return a definition in which what it reads elsewhere stands under the names of this text."""
        tree = deepcopy(tree)
        tree.args = self._arguments(fn, tree.args)
        if isinstance(tree, ast.FunctionDef):
            tree.decorator_list, tree.returns = [], None
        put = {name: self._free(fn, name, value) for name, value in free.items()}
        changed = {name: found for name, found in put.items() if not _is_name(found, name)}
        if twice := sorted(changed.keys() & _bound(tree)):
            raise NoTextError(f"'{fn.__qualname__}', in which '{twice[0]}' is two things: rename one of them")
        found: Kind = Replace(changed).visit(tree)
        return found

    def _free(self, fn: types.FunctionType, name: str, value: Any) -> ast.expr:
        if isinstance(value, types.ModuleType):
            if value is torch:
                self.need_torch()
                return ast.Name("torch", ast.Load())
            return self.module(value, name)
        if value is fn and id(fn) not in self.held:
            raise NoTextError(f"'{fn.__qualname__}', which calls itself as '{name}': write def {name}")
        try:
            if type(value) in (list, dict) and id(value) not in self.held:
                return self.define(value, self._literal(value, name), name)
            return self.write(value, name)
        except NoTextError as error:
            raise NoTextError(f"'{fn.__qualname__}', which reads '{name}': {error}") from None

    def _arguments(self, fn: types.FunctionType, args: ast.arguments) -> ast.arguments:
        """Return arguments without annotations, whose defaults are what the function has."""
        for one in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
            if one is not None:
                one.annotation = None
        args.defaults = [self.write(value) for value in fn.__defaults__ or ()]
        named = fn.__kwdefaults__ or {}
        args.kw_defaults = [
            self.write(named[one.arg], one.arg) if one.arg in named else None for one in args.kwonlyargs
        ]
        return args


class Replace(ast.NodeTransformer):
    """Puts expressions in the place of names."""

    def __init__(self, put: Mapping[str, ast.expr]) -> None:
        """Take what to put for each name."""
        self.put = put

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name that is read."""
        return self.put.get(node.id, node)


def _bound(tree: Definition) -> set[str]:
    """Return every name that a definition gives a value itself, in any scope."""
    found = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found | {
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _is_name(found: ast.expr, name: str) -> bool:
    return isinstance(found, ast.Name) and found.id == name


def _at(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


def _rooms(module: str) -> Collection[str]:
    """Return the modules that may have something under its name, from the outermost."""
    parts = module.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _shown(value: Any) -> str:
    name = getattr(value, "__qualname__", None)
    return f"'{name}'" if name else f"a {type(value).__name__}"
