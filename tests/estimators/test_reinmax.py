"""ReinMax: exact on quadratic costs at temperature 1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import scg
from tests.estimators.building import of
from tests.estimators.relaxing import LOGITS, cubic, exact, mean_by_outcome, quadratic

STARTS = [LOGITS, of(3.0, -20.0, 0.0), torch.tensor(0.4).double(), torch.tensor(-4.0).double()]


def square(z: Tensor) -> Tensor:
    return quadratic(z) if z.dim() else 1.3 * (z - 0.3) ** 2 + z


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("start", STARTS, ids=str)
def test_it_is_exact_where_costs_are_quadratic(given: str, start: Tensor) -> None:
    found = mean_by_outcome(scg.ReinMax(), square, given, start)
    assert torch.allclose(found, exact(square, given, start), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("estimator", [scg.ReinMax(temperature=1.5), scg.ReinMax()])
def test_it_is_biased_at_other_temperatures_and_costs(estimator: scg.ReinMax) -> None:
    cost = square if estimator.temperature != 1.0 else cubic
    start = torch.tensor(1.2).double()
    found = mean_by_outcome(estimator, cost, "logits", start)
    assert (found - exact(cost, "logits", start)).abs() > 1e-3


def test_no_temperature_is_learned() -> None:
    with pytest.raises(scg.EstimatorError, match="passes the temperature no derivative"):
        scg.ReinMax(temperature="learned")
