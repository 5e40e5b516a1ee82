"""Sum and sample: its mean over every draw of the rest."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Binomial

import scg
from scg.testing import check_estimator
from tests.estimators.building import facts, of
from tests.estimators.draws import LAWS, SETTINGS, orders


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("name", SETTINGS)
def test_its_mean_over_all_draws_is_the_gradient(name: str, k: int) -> None:
    setting = SETTINGS[name]
    rest = setting.mass.clone()
    rest[rest.topk(min(k, len(rest))).indices] = 0.0
    draws = list(orders(rest, 1)) if float(rest.sum()) else [(1.0, [of(0.5)[0]])]
    total = torch.zeros((), dtype=torch.double)
    for probability, noise in draws:
        total = total + probability * setting.estimate(scg.SumAndSample(k=k), noise)
    seen = setting.seen()
    assert torch.allclose(total[seen], setting.gradient()[seen], rtol=1e-9, atol=1e-12)


def test_the_checks_of_choices_pass() -> None:
    several = check_estimator(
        scg.SumAndSample(k=1), only=["gradient-categorical", "gradient-one-hot", "traced-by-torch"]
    )
    assert {found.status for found in several} == {"passed"}


def test_it_asks_for_no_more_than_there_is() -> None:
    dist, given = LAWS["categorical-logits"]
    known = facts(dist, given, outcomes=5, elements=3)
    assert scg.SumAndSample(k=2).asks(known) == scg.Asks(downstream=9, fresh=("uniform",))
    assert scg.SumAndSample().asks(known) == scg.Asks(downstream=15)


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_what_is_summed_has_a_size(k: int) -> None:
    with pytest.raises(scg.EstimatorError, match="k is a whole number of outcomes, 1 or more, not"):
        scg.SumAndSample(k=k)


@pytest.mark.parametrize("probs", [0.0, 1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_a_certain_value_gives_0_or_the_exact_slope(k: int, probs: float) -> None:
    g = scg.Graph()
    z = g.sample("z", Binomial, 3, probs=g.param("p", torch.tensor(probs, dtype=torch.float64)))
    g.cost("c", 3 * (z - 1.2) ** 2)
    program = scg.compile(g, scg.SumAndSample(k=k))
    program(seed=1).loss.backward()
    found = float(program.get_parameter("p").grad)
    exact = float(scg.exact_gradient(g)["p"])
    assert min(abs(found), abs(found - exact)) < 1e-9
