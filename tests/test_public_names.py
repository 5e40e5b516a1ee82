"""What ``scg`` exports."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

import scg
from scg.estimators.registry import registry


def test_every_estimator_is_exported_under_the_name_of_its_class() -> None:
    for kind in registry().values():
        assert getattr(scg, kind.__name__) is kind
        assert kind.__name__ in scg.__all__


def test_everything_exported_is_documented() -> None:
    for name in scg.__all__:
        assert getattr(scg, name).__doc__


@pytest.mark.parametrize("name", scg.__all__)
def test_every_parameter_is_named_in_a_docstring(name: str) -> None:
    found = getattr(scg, name)
    several = [getattr(found, own) for own in found.__all__] if inspect.ismodule(found) else [found]
    for one in several:
        _check(one)


def _check(found: Any) -> None:
    if not inspect.isclass(found):
        assert _unnamed(found, found.__doc__) == []
    elif not issubclass(found, BaseException):
        for method in _methods(found):
            above = [getattr(kind, method.__name__, None) for kind in found.__mro__]
            told = [method.__doc__, found.__doc__, *(kind.__doc__ for kind in found.__mro__)]
            assert _unnamed(method, *told, *(inspect.getdoc(kind) for kind in above)) == [], method


def _methods(kind: type) -> list[FunctionType]:
    """Return what a class can be asked for: its own methods, how it is made and how it is called."""
    members = [getattr(member, "__func__", member) for member in vars(kind).values()]
    functions = [
        member
        for member in members
        if inspect.isfunction(member) and member.__qualname__.startswith(f"{kind.__qualname__}.")
    ]
    return [f for f in functions if not f.__name__.startswith("_") or f.__name__ in ("__init__", "__call__")]


def _unnamed(function: Callable[..., object], *texts: str | None) -> list[str]:
    words = set(re.findall(r"\w+", " ".join(text or "" for text in texts)))
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls", *words}]
