"""The estimators there are, by name: those of this package and those that others register."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from scg import estimators
from scg.errors import EstimatorError, PolicyError
from scg.estimators.protocol.border import check_kind
from scg.estimators.protocol.kinds import Estimator
from scg.nearest import named_nearest

GROUP = "scg.estimators"


@cache
def registry() -> dict[str, type[Estimator]]:
    """Return every estimator class by name: one file each here, and the entry points of others.

    >>> registry()["score"].__name__
    'Score'
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
        check_kind(kind)
        if kind.name in found and found[kind.name] is not kind:
            raise EstimatorError(f"there are two estimators '{kind.name}': {found[kind.name]} and {kind}")
        found[kind.name] = kind
    return found


def in_turn() -> list[type[Estimator]]:
    """Return the estimators that automatic choice tries, in its order."""
    several = [kind for kind in registry().values() if kind.tried is not None]
    return sorted(several, key=lambda kind: kind.tried or 0)


def words() -> dict[str, Estimator]:
    """Return what other words stand for: instances of estimators, by the words that their classes have.

    >>> words()["disarm"]
    Coupled(evaluations=2)
    """
    return {word: kind(**options) for kind in registry().values() for word, options in kind.words.items()}


def names() -> list[str]:
    """Return every name of an estimator that a policy can have."""
    return sorted({*registry(), *words()})


def by_name(name: str) -> Estimator:
    """Return the estimator of that name with its default options, or the instance that a word stands for."""
    if name in registry():
        return made(registry()[name])
    found = words().get(name)
    if found is None:
        raise PolicyError(named_nearest("estimator", name, names()))
    return found


def asked_for(entry: object, where: str) -> Estimator:
    """Return the estimator that an entry stands for, an instance or a name, or say what it is instead."""
    if isinstance(entry, str):
        return by_name(entry)
    if isinstance(entry, Estimator):
        check_kind(type(entry))
        return entry
    told = f"{where} gives names or instances of estimators, not"
    if isinstance(entry, type) and issubclass(entry, Estimator):
        raise PolicyError(f"{told} the class {entry.__name__}: write {entry.__name__}(...)")
    raise PolicyError(f"{told} {type(entry).__name__}")


def has_defaults(kind: type[Estimator]) -> bool:
    """Say whether an estimator can be made without options."""
    required = inspect.signature(kind).parameters.values()
    return all(
        item.default is not item.empty or item.kind in (item.VAR_POSITIONAL, item.VAR_KEYWORD)
        for item in required
    )


def made(kind: type[Estimator]) -> Estimator:
    """Return an estimator with its default options."""
    try:
        return kind()
    except TypeError as error:
        raise PolicyError(
            f"'{kind.name}' has options without a default ({error}): give an instance"
        ) from None
