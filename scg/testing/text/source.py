"""Source: the definition of a function, held against its code, and the names that it reads elsewhere."""

from __future__ import annotations

import ast
import builtins
import dis
import linecache
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

from scg.testing.text.literals import NoTextError

Definition = ast.Lambda | ast.FunctionDef
KEEPING = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF"})


@dataclass(frozen=True)
class Source:
    """The definition of a function, and what the names stand for that it finds outside of itself."""

    tree: Definition
    free: Mapping[str, Any]


def source_of(fn: FunctionType) -> Source:
    """Return the source of a function; raise ``NoTextError`` where there is none, or it keeps a state."""
    code = fn.__code__
    text = "".join(linecache.getlines(code.co_filename))
    if not text:
        raise NoTextError(f"'{fn.__qualname__}', of which {code.co_filename} has no source")
    try:
        tree, codes = _compiled(text, code.co_filename)
    except (SyntaxError, ValueError):
        raise NoTextError(f"'{fn.__qualname__}', and {code.co_filename} is no Python file") from None
    if code not in codes:
        raise NoTextError(
            f"'{fn.__qualname__}', which is not what {code.co_filename}:{code.co_firstlineno} says now"
        )
    return Source(_definition(tree, code, fn.__qualname__), _free(fn))


@cache
def _compiled(text: str, filename: str) -> tuple[ast.Module, frozenset[CodeType]]:
    """Return a file as a tree, and all code in it."""
    code = compile(text, filename, "exec", dont_inherit=True)
    return ast.parse(text), frozenset(_codes(code))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _definition(tree: ast.Module, code: CodeType, name: str) -> Definition:
    """Return the definition that some code was made of: of lambdas, the innermost that has all of it."""
    if code.co_name != "<lambda>":
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        found: list[Definition] = [node for node in functions if _begins(node, code)]
    else:
        lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        found = [node for node in lambdas if _spans(node, code)]
        found = found[-1:] if _places(code) else found
    if len(found) != 1:
        raise NoTextError(f"'{name}', which is no plain function or lambda")
    return found[0]


def _begins(node: ast.FunctionDef, code: CodeType) -> bool:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return node.name == code.co_name and first == code.co_firstlineno


def _spans(node: ast.Lambda, code: CodeType) -> bool:
    """Say whether all of some code lies within the body of a lambda."""
    begin, end = (node.body.lineno, node.body.col_offset), (node.body.end_lineno, node.body.end_col_offset)
    return node.lineno == code.co_firstlineno and all(
        begin <= (line, column) and (last, edge) <= end for line, last, column, edge in _places(code)
    )


def _places(code: CodeType) -> list[tuple[int, int, int, int]]:
    """Return where instructions stand: first and last line, first and last column."""
    return [
        (line, last, column, edge)
        for line, last, column, edge in code.co_positions()
        if line is not None and last is not None and column is not None and edge
    ]


def _free(fn: FunctionType) -> dict[str, Any]:
    """Return what a function reads outside of itself, by name; builtins are everywhere."""
    found: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            raise NoTextError(f"'{fn.__qualname__}', whose '{name}' is not set yet") from None
    for code in _codes(fn.__code__):
        for step in dis.get_instructions(code):
            name = step.argval
            if step.opname in KEEPING and (step.opname.endswith("GLOBAL") or name in fn.__code__.co_freevars):
                raise NoTextError(f"'{fn.__qualname__}', which changes '{name}' outside of itself")
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") and name not in found:
                if name in fn.__globals__:
                    found[name] = fn.__globals__[name]
                elif not hasattr(builtins, name):
                    raise NoTextError(f"'{fn.__qualname__}', whose '{name}' is not defined")
    return found
