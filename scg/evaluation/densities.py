"""The law of one node and its parameters, laid out as leading plates, event and atom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from scg.errors import GraphError, PlateError
from scg.evaluation.bounds import bound, is_moved_by_parents
from scg.evaluation.invoke import call, callable_of, seen
from scg.laws import LAWS, Law, bind, bounded, law_for, law_of, unbounded_count
from scg.nodes.arguments import Ref, references
from scg.nodes.ir import IR
from scg.nodes.records import Function, Record, Sample
from scg.probes.generators import steady_generators


@dataclass(frozen=True)
class Density:
    """The law of a sample or log-probability node, and how its parameters are laid out.

    ``parameters`` have the leading plates of the node if ``plated`` (none otherwise), then ``inner``
    batch dimensions that belong to the node's event, of which ``missing`` were inserted, then the
    dimensions of one atomic event, of which ``short`` were appended.
    """

    law: Law
    parameters: Mapping[str, Tensor]
    inner: int
    plated: Mapping[str, bool]
    missing: Mapping[str, int]
    short: Mapping[str, int]

    @property
    def dtype(self) -> torch.dtype:
        """The larger of float32 and the types of the parameters, in which noise is drawn."""
        floats = [leaf.dtype for leaf in self.parameters.values() if leaf.is_floating_point()]
        return reduce(torch.promote_types, floats, torch.float32)


def make_density(
    ir: IR,
    values: Mapping[str, Any],
    record: Record,
    function: Function,
    least: Callable[[Law], int] = lambda law: 0,
) -> Density:
    """Return the law that a node's distribution makes of the values of its parents.

    Its event has at least as many batch dimensions as ``least`` says for the law.
    """
    dist = callable_of(ir, function)
    plates = len(ir.layout[record.name])
    args, kwargs = record.arguments.substitute(lambda name: seen(ir, record, name, values[name]))
    if isinstance(dist, type) and issubclass(dist, Distribution) and dist in LAWS:
        law, given = call(record, _law_of_class, (dist, args, kwargs), {})
        lead = _lead_of_arguments(ir, record, dist)
        if unbounded_count(law) is not None and isinstance(record, Sample):
            most = bound(
                ir, values, bind(dist, record.arguments.args, record.arguments.kwargs)["total_count"]
            )
            law = law if most is None else bounded(law, most)
    else:
        law, given = call(record, taken_apart, (call(record, dist, args, kwargs),), {})
        lead = dict.fromkeys(given, any(ir.layout[parent] for parent in record.arguments.names))
        law = _bounded_by_example(record, dist, args, kwargs, law, given)
    if any(lead.values()) and len(law.batch_shape(given)) < plates:
        raise PlateError(
            f"node '{record.name}' ({record.where}) lies in plates {ir.layout[record.name]}, but its "
            f"distribution has batch shape {tuple(law.batch_shape(given))}: "
            "keep the plates as leading dimensions"
        )
    plated = {name: bool(lead.get(name)) and value.dim() >= plates for name, value in given.items()}
    short = {
        name: max(law.event_rank(name) - value.dim() + plates * plated[name], 0)
        for name, value in given.items()
    }
    atoms = {name: value[(..., *(None,) * short[name])] for name, value in given.items()}
    own = {name: value.dim() - law.event_rank(name) - plates * plated[name] for name, value in atoms.items()}
    inner = max(least(law), *own.values())
    missing = {name: inner - own[name] for name in given}
    parameters = {name: pad(value, plates * plated[name], missing[name]) for name, value in atoms.items()}
    return Density(law, parameters, inner, plated, missing, short)


def _bounded_by_example(
    record: Record,
    dist: Callable[..., Distribution],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    law: Law,
    given: Mapping[str, Tensor],
) -> Law:
    """Return a law with a bound on its number of trials where no parent moves that; runs are held to it."""
    name = unbounded_count(law)
    if name is None or not isinstance(record, Sample):
        return law

    def count(*args: Any, **kwargs: Any) -> Tensor:
        return taken_apart(dist(*args, **kwargs))[1][name]

    with steady_generators():
        is_moved = is_moved_by_parents(count, args, kwargs, given[name])
    return law if is_moved else bounded(law, int(given[name].max()))


def _law_of_class(
    dist: type[Distribution], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Law, dict[str, Tensor]]:
    return law_for(dist, bind(dist, args, kwargs))


def taken_apart(dist: Distribution) -> tuple[Law, dict[str, Tensor]]:
    """Return the law and the parameters of a live distribution, all of them with its batch dimensions.

    Numbers of trials are parameters.
    """
    law, parameters = law_of(dist, live=True)
    return law, law.expand(parameters, law.batch_shape(parameters))


def pad(value: Tensor, lead: int, missing: int) -> Tensor:
    """Insert ``missing`` size-1 dimensions after the ``lead`` leading ones, if there are any."""
    if not lead or not missing:
        return value
    return value[(slice(None),) * lead + (None,) * missing]


def _lead_of_arguments(ir: IR, record: Record, dist: type) -> dict[str, bool]:
    """Say which constructor arguments of a distribution class carry the plates of a parent."""
    templates = bind(dist, record.arguments.args, record.arguments.kwargs)
    for key, template in templates.items():
        if not isinstance(template, Ref) and any(references(template)):
            raise GraphError(
                f"node '{record.name}' ({record.where}): {dist.__name__} takes one tensor as {key}, found a "
                f"{type(template).__name__} that holds nodes: join them first, as with torch.stack"
            )
    return {
        key: isinstance(template, Ref) and bool(ir.layout[template.name])
        for key, template in templates.items()
    }
