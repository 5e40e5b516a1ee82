"""The estimators there are, by name: those of this package and those that others register."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from scg.errors import PolicyError
from scg.surrogate import estimators
from scg.surrogate.estimators.base import Estimator

GROUP = "scg.estimators"


@cache
def registry() -> dict[str, type[Estimator]]:
    """Return every estimator class by name: one file each here, and the entry points of others.

    >>> sorted(registry())[:3]
    ['enumerate', 'lax', 'rebar']
    """
    found: dict[str, type[Estimator]] = {}
    for module in pkgutil.iter_modules(estimators.__path__, f"{estimators.__name__}."):
        for _, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
            if (
                issubclass(kind, Estimator)
                and not inspect.isabstract(kind)
                and kind.__module__ == module.name
            ):
                found[kind.name] = kind
    for point in entry_points(group=GROUP):
        kind = point.load()
        found[kind.name] = kind
    return found


def by_name(name: str) -> Estimator:
    """Return the estimator of that name with its default options."""
    if name not in registry():
        raise PolicyError(f"there is no estimator '{name}'; there are {', '.join(sorted(registry()))}")
    return registry()[name]()
