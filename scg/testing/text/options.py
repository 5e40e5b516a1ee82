"""Options: estimators as the calls that make them, with the options that are not the default."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from torch import nn

from scg.choosing.parts import Parts
from scg.choosing.policy import Policy
from scg.errors import GraphError
from scg.estimators.protocol.kinds import Estimator
from scg.testing.text.literals import NoTextError, parsed
from scg.testing.text.surroundings import Surroundings


def policy_row(policy: Policy, around: Surroundings) -> ast.stmt:
    """Return the statement that gives a policy its name."""
    if not isinstance(policy, Mapping):
        return _assigned("policy", entry("every node", policy, around))
    several = list(policy.values())
    for name, found in policy.items():
        is_shared = sum(found is other for other in several) > 1
        if is_shared and isinstance(found, Estimator) and id(found) not in around.held:
            around.define(found, entry(name, found, around), f"{found.name}_estimator")
    keys: list[ast.expr | None] = [ast.Constant(name) for name in policy]
    return _assigned("policy", ast.Dict(keys, [entry(name, one, around) for name, one in policy.items()]))


def _assigned(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def entry(node: str, found: Any, around: Surroundings) -> ast.expr:
    """Return what a policy has for a node: a name, or the call that makes an instance."""
    if isinstance(found, Parts):
        raise GraphError(f"as_code cannot write the policy of '{node}': parts have no text. Write them apart")
    try:
        return made(found, around)
    except NoTextError as error:
        raise GraphError(f"as_code cannot write the policy of '{node}': it has {error}") from None


def made(value: Any, around: Surroundings) -> ast.expr:
    """Return a frozen dataclass, as estimators and baselines are, as a call; other values as they are."""
    if id(value) in around.held or not is_dataclass(value) or isinstance(value, (type, nn.Module)):
        return around.write(value)
    kind = type(value)
    if kind.__module__.startswith("scg."):
        name = parsed(f"scg.{kind.__name__}")
    elif kind.__module__ == "__main__" or "<" in kind.__qualname__:
        name = ast.Name(kind.__name__, ast.Load())
    else:
        name = around.imported(kind.__module__, kind.__name__)
    given = [one for one in fields(value) if one.init and not _is_default(one, value)]
    return ast.Call(
        name, [], [ast.keyword(one.name, made(getattr(value, one.name), around)) for one in given]
    )


def _is_default(one: Field[Any], value: Any) -> bool:
    """Say whether a field has what it has in an instance that is made without it."""
    found = getattr(value, one.name)
    if one.default is MISSING and one.default_factory is MISSING:
        return False
    try:
        plain = getattr(type(value)(), one.name)
    except TypeError:
        plain = one.default if one.default_factory is MISSING else one.default_factory()
    return type(found) is type(plain) and bool(found == plain)
