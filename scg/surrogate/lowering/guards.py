"""Guards: the law that a factory makes in a run, held against the one that its program was compiled for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from scg.errors import GraphError
from scg.evaluation.densities import taken_apart
from scg.laws import Law, bound_of, is_exporting, is_transformed, unbounded
from scg.laws.alike import Held
from scg.laws.elementary import Formulas
from scg.nodes.records import Record

Factory = Callable[..., Distribution]
ADVICE = (
    "A program keeps the law of its example, and only tensors may change: give what changes as a node or a "
    "tensor parameter of the distribution (g.input, g.param, torch.tensor), or compile again"
)


def guarded(record: Record, compiled: Law) -> Callable[[Factory], Callable[..., dict[str, Tensor]]]:
    """Return what makes a factory of distributions one of their parameters, and raises for another law."""
    wanted, count = unbounded(compiled), bound_of(compiled)
    where = f"node '{record.name}' ({record.where})"

    def of(fn: Factory) -> Callable[..., dict[str, Tensor]]:
        def made(*args: Any, **kwargs: Any) -> dict[str, Tensor]:
            law, parameters = taken_apart(fn(*args, **kwargs))
            if law != wanted:
                raise GraphError(f"{where}: its factory {difference(wanted, law)}. {ADVICE}")
            if count is not None:
                _check_count(where, parameters[count[0]], *count)
            return parameters

        return made

    return of


def difference(compiled: Law, found: Law) -> str:
    """Say in what two laws differ.

    >>> from torch import distributions as td
    >>> normal, laplace = (dist(torch.zeros(()), 1.0) for dist in (td.Normal, td.Laplace))
    >>> difference(taken_apart(normal)[0], taken_apart(laplace)[0])
    'made a Laplace, but the program was compiled for a Normal'
    """
    if compiled.family != found.family:
        return f"made a {found.family}, but the program was compiled for a {compiled.family}"
    before, after = _told(compiled), _told(found)
    changed = [name for name in (*before, *after) if before.get(name) != after.get(name)]
    name = changed[0] if changed else "something"
    old, new = (_shown(told.get(name, "nothing")) for told in (before, after))
    return f"made a {found.family} with {name} {new}, but the program was compiled for {old}"


def _check_count(where: str, total: Tensor, name: str, most: int) -> None:
    """Raise for a number of trials beyond the example's, where no parent of the factory moves it."""
    message = (
        f"{where}: its factory made a distribution with {name} over {most}, the most that it had when the "
        "program was compiled. Give the number of trials as a node: "
        "g.sample(name, Binomial, total_count=node, ...)"
    )
    if is_transformed() or is_exporting():
        torch._assert_async((total <= most).all(), message)
    elif bool((total > most).any()):
        raise GraphError(message)


def _told(holder: Any, path: str = "") -> dict[str, Any]:
    """Return what a law holds besides its parameters, by name."""
    if isinstance(holder, Held) and not hasattr(holder.value, "__dict__"):
        return {path: holder.value}
    if isinstance(holder, Held):
        items = {"": type(holder.value).__name__, **vars(holder.value)}
        return {f"{path}.{name}".strip("."): item for name, item in items.items() if name[:1] != "_"}
    if isinstance(holder, tuple):
        pairs = all(
            isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in holder
        )
        named = holder if pairs else [(str(index), item) for index, item in enumerate(holder)]
        return {key: value for name, item in named for key, value in _told(item, name).items()}
    if is_dataclass(holder) and not isinstance(holder, Formulas):
        several = [(field.name, getattr(holder, field.name)) for field in fields(holder)]
        kind = {f"{path} kind".strip(): type(holder).__name__}
        return kind | {key: value for name, item in several for key, value in _told(item, name).items()}
    return {path: holder}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
