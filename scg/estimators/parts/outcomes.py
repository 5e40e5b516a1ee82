"""Outcomes: some of the values that an element can have, the costs at each, and a weighed sum of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scg.errors import EstimatorError
from scg.estimators.parts.elements import elements_of, where_possible
from scg.estimators.protocol.site import Site, derivative


def summed(site: Site, places: Tensor, weigh: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return sum_i w_i dp(outcome i), w what is made of the costs [m, *batch] at outcomes of each element.

    ``places`` [m, *batch] say which of the support they are; the other elements stay at their sample.
    """
    law = site.law
    others = law.support(site.parameters)[places]
    costs = where_possible(site, others, elements_of(site).evaluated(site, others))
    weights = weigh(costs)

    def expected(parameters: dict[str, Tensor]) -> tuple[Tensor, tuple[()]]:
        return (law.mass(parameters).gather(0, places) * weights).sum(), ()

    return derivative(expected, site.parameters, attached=False)[0]


def every(mass: Tensor) -> Tensor:
    """Return the places [n, *batch] of all outcomes, of which the mass [n, *batch] is given."""
    places = torch.arange(len(mass), device=mass.device)
    return places[(slice(None), *(None,) * (mass.dim() - 1))].expand(mass.shape)


def drawn(mass: Tensor, noise: Tensor) -> Tensor:
    """Return the place [*batch] of an outcome that is drawn by its mass [n, *batch], whatever the sum."""
    sums = mass.cumsum(0)
    return (sums <= noise * sums[-1]).sum(0).clamp(max=len(mass) - 1)


def own_noise(site: Site, index: int = 0) -> Tensor:
    """Return one uniform number for each element."""
    noise = site.fresh_noise(index)
    return noise[..., 0] if site.law.value_rank else noise


def check_number(name: str, number: object, least: int, most: int | None = None) -> None:
    """Refuse an option that is no whole number of outcomes, or too small or large a one."""
    is_whole = isinstance(number, int) and not isinstance(number, bool)
    if not is_whole or number < least or (most is not None and number > most):  # type: ignore[operator]
        upper = "" if most is None else f", at most {most}"
        raise EstimatorError(f"{name} is a whole number of outcomes, {least} or more{upper}, not {number!r}")
