"""Distribution classes without a law of their own: rebuilt from their ``arg_constraints``."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from scg.errors import GraphError
from scg.laws.alike import Held, differing
from scg.laws.elementary import Elementary, Formulas, rebuild
from scg.laws.law import Law
from scg.laws.numbers import is_transformed
from scg.laws.transforms import hidden_tensors


def opaque(dist: Distribution) -> tuple[Law, dict[str, Tensor]]:
    """Take apart a distribution through the parameters that its ``arg_constraints`` name.

    Other arguments of the constructor are read off attributes of the same name, and belong to the law.
    """
    cls = type(dist)
    known = _constraints(dist)
    parameters = {k: v for k, v in vars(dist).items() if k in known and isinstance(v, Tensor)}
    _refuse_hidden(dist, parameters)
    static = _static(dist, parameters)
    try:
        rebuilt = rebuild(cls, {**parameters, **static})
    except (TypeError, ValueError, AttributeError) as error:
        given = ", ".join((*parameters, *static)) or "nothing"
        raise GraphError(_advice(cls, f"cannot be rebuilt from {given} ({error})")) from error
    lost = _lost(dist, rebuilt)
    if lost:
        raise GraphError(
            _advice(cls, f"loses '{lost[0]}' when it is rebuilt from {', '.join((*parameters, *static))}")
        )
    ranks = tuple((name, known[name].event_dim) for name in parameters)
    formulas = Formulas(
        cls,
        ranks=ranks,
        value_rank=len(rebuilt.event_shape),
        discrete=_is_discrete(dist),
        movers=_movers(cls, parameters, static),
    )
    held = tuple((name, Held(value)) for name, value in static.items())
    return Elementary(formulas, tuple(parameters), held), parameters


def _static(dist: Distribution, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of the constructor that are kept, and are no parameters."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    takes = signature(type(dist)).parameters
    return {
        name: vars(dist)[name]
        for name, item in takes.items()
        if item.kind in named and name in vars(dist) and name not in parameters
    }


def _lost(dist: Distribution, rebuilt: Distribution) -> tuple[str, ...]:
    """Return the attributes that the constructor did not make again, but for those computed on demand."""
    cls, made = type(dist), vars(rebuilt)
    found = differing(dist, rebuilt, looks=not is_transformed())
    return tuple(name for name in found if name in made or not hasattr(cls, name))


def _constraints(dist: Distribution) -> dict[str, Any]:
    try:
        return dict(dist.arg_constraints)
    except NotImplementedError:
        return {}


def _advice(cls: type, fault: str) -> str:
    return (
        f"{cls.__name__} {fault}. Name every tensor argument in the class attribute arg_constraints, keep "
        "every argument under its own name (self.scale = scale), and accept it by that keyword in the "
        "constructor."
    )


def _refuse_hidden(dist: Distribution, parameters: dict[str, Tensor]) -> None:
    known = {id(tensor) for tensor in parameters.values()}
    for path, tensor in hidden_tensors(dist):
        lost = tensor.requires_grad and (tensor.is_leaf or not parameters)
        if id(tensor) not in known and lost:
            raise GraphError(
                _advice(type(dist), f"keeps '{path[1:]}', which requires grad, out of its parameters")
            )


def _is_discrete(dist: Distribution) -> bool:
    try:
        return bool(getattr(dist.support, "is_discrete", False))
    except (NotImplementedError, AttributeError):
        return False


def _movers(
    cls: type[Distribution], parameters: dict[str, Tensor], static: dict[str, Any]
) -> tuple[str, ...]:
    """The parameters from which the bounds of the support are computed."""
    leaves = {
        name: tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in parameters.items()
    }
    with torch.enable_grad():
        try:
            bounds = list(vars(_base(rebuild(cls, {**leaves, **static}).support)).values())
        except (NotImplementedError, AttributeError):
            return ()
        moved = [bound.sum() for bound in bounds if isinstance(bound, Tensor) and bound.requires_grad]
        wanted = [name for name, tensor in leaves.items() if tensor.requires_grad]
        if not moved or not wanted:
            return ()
        total = torch.stack(moved).sum()
        found = torch.autograd.grad(total, [leaves[name] for name in wanted], allow_unused=True)
    return tuple(name for name, gradient in zip(wanted, found, strict=True) if gradient is not None)


def _base(constraint: Any) -> Any:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint
