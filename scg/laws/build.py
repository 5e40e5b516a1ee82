"""From torch distributions, or from a class and its arguments, to a law and its parameter tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from scg.errors import GraphError
from scg.laws.categorical import Categorical
from scg.laws.generic import opaque
from scg.laws.independent import Independent
from scg.laws.law import Law, prefixed
from scg.laws.mixture import Mixture
from scg.laws.registry import LAWS, Entry
from scg.laws.transformed import Transformed
from scg.laws.transforms import template_of

Taken = tuple[Law, dict[str, Tensor]]


def law_of(dist: Distribution, *, live: bool = False) -> Taken:
    """Take a live distribution apart into its law and its parameters, still attached to autograd.

    Numbers of trials are parameters where they differ between elements, and always if they are ``live``.

    >>> law, parameters = law_of(td.Independent(td.Normal(torch.zeros(3), 1.0), 1))
    >>> law.family, sorted(parameters)
    ('Normal', ['loc', 'scale'])
    """
    while type(dist) is td.Independent:
        dist = dist.base_dist
    return _take(dist, live)


def _take(dist: Distribution, live: bool) -> Taken:
    if not isinstance(dist, Distribution):
        raise GraphError(f"expected a torch.distributions.Distribution, found {type(dist).__name__}.")
    entry = LAWS.get(type(dist))
    if entry is not None:
        return _take_entry(dist, entry, live)
    if type(dist) is td.Independent:
        base, parameters = _take(dist.base_dist, live)
        rank = dist.reinterpreted_batch_ndims
        return (Independent(base, rank) if rank else base), parameters
    if type(dist) is td.MixtureSameFamily:
        return _take_mixture(dist, live)
    if isinstance(dist, td.TransformedDistribution) and _keeps(type(dist), td.TransformedDistribution):
        return _take_transformed(dist, live)
    return opaque(dist)


def _keeps(cls: type, base: type) -> bool:
    return all(getattr(cls, name) is getattr(base, name) for name in ("log_prob", "rsample", "sample"))


def _take_entry(dist: Distribution, entry: Entry, live: bool) -> Taken:
    names = entry.common + ((_given(dist, entry.either),) if entry.either else ())
    static = {name: getattr(dist, name) for name in entry.static if hasattr(dist, name)}
    parameters = {name: getattr(dist, name) for name in names}
    if "total_count" in static and (live or isinstance(static["total_count"], Tensor)):
        total = static.pop("total_count")
        counts = [] if live else total.detach().unique().tolist()
        if len(counts) == 1:
            static["total_count"] = int(counts[0])
        else:
            parameters = _tensors({"total_count": total, **parameters})
    return entry.make(tuple(parameters), static), parameters


def _given(dist: Distribution, either: tuple[str, ...]) -> str:
    """Which of the alternatives the distribution was made from; its own properties cache the others."""
    if "scale_tril" in either:
        return "scale_tril"
    holder = vars(dist)
    while not holder.keys() & set(either):
        holder = vars(holder["_categorical"] if "_categorical" in holder else holder["base_dist"])
    held = [name for name in either if name in holder]
    return next((name for name in held if holder[name] is holder.get("_param")), held[0])


def _take_mixture(dist: td.MixtureSameFamily, live: bool) -> Taken:
    mixture, weights = _take(dist.mixture_distribution, live)
    component, parameters = _take(dist.component_distribution, live)
    assert isinstance(mixture, Categorical)
    return Mixture(mixture, component), {**prefixed(weights, "mixture"), **prefixed(parameters, "component")}


def _take_transformed(dist: td.TransformedDistribution, live: bool) -> Taken:
    base, inner = _take(dist.base_dist, live)
    parameters = prefixed(inner, "base")
    templates, ranks, rank = [], [], base.value_rank
    for i, transform in enumerate(dist.transforms):
        template, tensors = template_of(transform, f"transform{i}")
        rank += transform.codomain.event_dim - transform.domain.event_dim
        templates.append(template)
        ranks.append(rank)
        parameters.update(tensors)
    return (Transformed(base, tuple(templates), tuple(ranks)) if templates else base), (
        parameters if templates else inner
    )


def law_for(cls: type[Distribution], arguments: Mapping[str, Any]) -> Taken:
    """The law of ``cls(**arguments)``, without making that object where the class has a law of its own.

    >>> law, parameters = law_for(td.Bernoulli, {"logits": torch.zeros(2)})
    >>> law.parameters
    ('logits',)
    """
    entry = LAWS.get(cls)
    if entry is None:
        return law_of(_construct(cls, arguments))
    given = {k: v for k, v in arguments.items() if k != "validate_args" and v is not None}
    names = _names(cls, entry, given)
    values = {**_defaults(cls), **given}
    static = {name: values[name] for name in entry.static if name in values}
    if entry.counted is not None and isinstance(static["total_count"], Tensor):
        names = ("total_count", *names)
    for name in static.keys() - names:
        if _has_tensor(static[name]):
            raise GraphError(
                f"{cls.__name__} has one '{name}' for all that it describes, which cannot come from a node "
                "or a tensor: write a number"
            )
    return entry.make(names, static), _tensors({name: values[name] for name in names})


def _has_tensor(value: Any) -> bool:
    several = value if isinstance(value, (list, tuple)) else (value,)
    return any(isinstance(item, Tensor) for item in several)


def _names(cls: type[Distribution], entry: Entry, given: Mapping[str, Any]) -> tuple[str, ...]:
    known = entry.common + entry.either + entry.static
    for name in given:
        if name not in known:
            raise GraphError(f"{cls.__name__} has no argument '{name}'. Write {_signature(entry)}.")
    chosen = tuple(name for name in entry.either if name in given)
    if entry.either and len(chosen) != 1:
        found = " and ".join(chosen) if chosen else "none of them"
        raise GraphError(f"{cls.__name__} takes exactly one of {', '.join(entry.either)}, found {found}.")
    for name in entry.common:
        if name not in given and name not in _defaults(cls):
            raise GraphError(f"{cls.__name__} needs '{name}'. Write {_signature(entry)}.")
    return entry.common + chosen


def _signature(entry: Entry) -> str:
    parts = [f"{name}=..." for name in entry.static + entry.common]
    return ", ".join(parts + ([" or ".join(f"{name}=..." for name in entry.either)] if entry.either else []))


def _tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """Turn numbers into tensors like the tensors beside them."""
    like = next((v for v in values.values() if isinstance(v, Tensor) and v.is_floating_point()), None)
    dtype = torch.get_default_dtype() if like is None else like.dtype
    device = None if like is None else like.device
    return {
        name: value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=dtype, device=device)
        for name, value in values.items()
    }


@cache
def _inspect(cls: Any) -> inspect.Signature:
    return inspect.signature(cls)


def _parameters(cls: Any) -> inspect.Signature:
    return _inspect(cls)


def _defaults(cls: Any) -> dict[str, Any]:
    items = _parameters(cls).parameters.items()
    return {name: item.default for name, item in items if item.default not in (item.empty, None)}


def _construct(cls: type[Distribution], arguments: Mapping[str, Any]) -> Distribution:
    takes = "validate_args" in _parameters(cls).parameters
    options = {"validate_args": False, **arguments} if takes else dict(arguments)
    try:
        return cls(**options)
    except (TypeError, ValueError) as error:
        raise GraphError(f"{cls.__name__}({', '.join(arguments)}) cannot be made: {error}") from error


def bind(cls: type[Distribution], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Name positional arguments by the constructor's signature.

    >>> bind(td.Normal, (0.0,), {"scale": 1.0})
    {'loc': 0.0, 'scale': 1.0}
    """
    signature = _parameters(cls)
    try:
        bound = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise GraphError(f"{cls.__name__}: {error}. Write {cls.__name__}{signature}.") from error
    for name, item in signature.parameters.items():
        if item.kind is item.VAR_KEYWORD:
            bound.update(bound.pop(name, {}))
        if item.kind is item.VAR_POSITIONAL and name in bound:
            raise GraphError(
                f"{cls.__name__} takes *{name}, which has no names. Pass its arguments by keyword."
            )
    return bound
