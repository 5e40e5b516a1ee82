"""Outcomes: the values that one stochastic node is given in turn, and the probability of each."""

from __future__ import annotations

from functools import cache

import torch
from torch import Size, Tensor

from scg.errors import GraphError
from scg.evaluation.densities import Density
from scg.laws import Law, Parameters
from scg.nodes.records import Record


def outcome_count(record: Record, density: Density, points: int) -> int:
    """Return how many outcomes each element has: its support, or ``points`` where it is normal."""
    law = density.law
    if law.finite:
        return len(law.support(density.parameters))
    if law.family == "Normal":
        return points
    raise GraphError(
        f"the oracle cannot list sample '{record.name}' ({record.where}): {law.family} is neither finite "
        f"nor Normal; for an exact objective, give it a distribution of one of these kinds"
    )


def outcome(density: Density, index: Tensor, batch: Size, points: int) -> tuple[Tensor, Tensor]:
    """Return the values at ``index``, detached, and their probabilities ``[*batch]``, attached.

    ``index`` broadcasts to ``batch``. Probabilities are the law's ``mass``, whose derivative is exact
    at 0 and 1 as well.
    """
    law, parameters = density.law, density.law.expand(density.parameters, batch)
    index = index.to(next(iter(parameters.values())).device).expand(batch)
    if law.family == "Normal":
        return _normal(law, parameters, index, points)
    mass = law.mass(parameters)
    return law.support(parameters)[index], mass.gather(0, index.unsqueeze(0)).squeeze(0)


def _normal(law: Law, parameters: Parameters, index: Tensor, points: int) -> tuple[Tensor, Tensor]:
    """``x = loc + scale z_k`` held fixed, with the weight ``w_k p(x; loc, scale) / sg p(x; loc, scale)``.

    The nodes stay where they are and the density moves, so the derivative needs nothing of what is
    downstream: ``E d f(loc + scale z)`` would be 0 through a step or a black box.
    """
    loc, scale = parameters["loc"], parameters["scale"]
    nodes, weights = (column.to(loc) for column in gauss_hermite(points))
    value = (loc + scale * nodes[index]).detach()
    log_prob = law.log_prob(parameters, value)
    return value, weights[index] * (log_prob - log_prob.detach()).exp()


@cache
def gauss_hermite(points: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights with ``E f(z) = sum_k w_k f(z_k)`` for polynomials of degree < 2 ``points``.

    They are the eigenvalues, and the squared first entries of the eigenvectors, of the recurrence of
    the Hermite polynomials (Golub and Welsch, 1969, doi:10.1090/S0025-5718-69-99647-1).

    >>> nodes, weights = gauss_hermite(3)
    >>> round(float((weights * nodes**4).sum()), 12)
    3.0
    """
    side = torch.arange(1, points, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(side, 1) + torch.diag(side, -1))
    return nodes, vectors[0] ** 2
