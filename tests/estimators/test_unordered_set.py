"""The unordered set: its mean over every order of draws, and how probable sets are."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

import scg
from scg.estimators.unordered_set import completions
from scg.testing import check_estimator
from tests.estimators.building import facts, of
from tests.estimators.draws import LAWS, SETTINGS, orders


@pytest.mark.parametrize(
    "estimator",
    [
        scg.UnorderedSet(k=1),
        scg.UnorderedSet(k=2),
        scg.UnorderedSet(k=3),
        scg.UnorderedSet(),
        scg.UnorderedSet(k=2, has_baseline=True),
        scg.UnorderedSet(k=3, has_baseline=True),
        scg.UnorderedSet(k=4, has_baseline=True),
        scg.UnorderedSet(k=8),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", SETTINGS)
def test_its_mean_over_all_draws_is_the_gradient(name: str, estimator: scg.UnorderedSet) -> None:
    setting = SETTINGS[name]
    total = torch.zeros((), dtype=torch.double)
    for probability, noise in orders(setting.mass, min(estimator.k, len(setting.mass))):
        total = total + probability * setting.estimate(estimator, noise)
    seen = setting.seen()
    assert torch.allclose(total[seen], setting.gradient()[seen], rtol=1e-9, atol=1e-12)


def test_a_set_is_as_probable_as_all_of_its_orders() -> None:
    mass = of(0.1, 0.2, 0.05, 0.4, 0.25)
    for chosen in itertools.combinations(range(5), 3):
        expected = sum(
            mass[a] * mass[b] / (1 - mass[a]) * mass[c] / (1 - mass[a] - mass[b])
            for a, b, c in itertools.permutations(chosen)
        )
        chances = [mass[place] for place in chosen]
        assert torch.allclose(completions(chances, mass.sum() - sum(chances))[0], expected, rtol=1e-12)


def test_float32_and_extreme_logits_stay_finite() -> None:
    wide = SETTINGS["extreme"]
    setting = replace(wide, given={name: leaf.float() for name, leaf in wide.given.items()})
    for u in (1e-7, 0.3, 0.9999999):
        for has_baseline in (False, True):
            estimator = scg.UnorderedSet(has_baseline=has_baseline)
            found = setting.estimate(estimator, [torch.tensor(u)] * 4)
            assert found.dtype == torch.float32 and bool(found.isfinite().all())


@pytest.mark.parametrize("has_baseline", [False, True])
def test_the_checks_of_choices_pass(has_baseline: bool) -> None:
    several = check_estimator(
        scg.UnorderedSet(k=2, has_baseline=has_baseline),
        only=["gradient-categorical", "gradient-one-hot", "traced-by-torch"],
    )
    assert {found.status for found in several} == {"passed"}


def test_it_asks_for_no_more_than_there_is() -> None:
    dist, given = LAWS["categorical-logits"]
    known = facts(dist, given, outcomes=5, elements=3)
    assert scg.UnorderedSet(k=2).asks(known) == scg.Asks(downstream=6, fresh=("uniform", "uniform"))
    assert scg.UnorderedSet(k=8).asks(known) == scg.Asks(downstream=15)


@pytest.mark.parametrize("k", [0, 9, 2.0, True])
def test_a_set_has_a_size(k: int) -> None:
    with pytest.raises(scg.EstimatorError, match="k is a whole number of outcomes, 1 or more, at most 8"):
        scg.UnorderedSet(k=k)


def test_one_outcome_is_compared_with_nothing() -> None:
    with pytest.raises(scg.EstimatorError, match="give k=2 or more"):
        scg.UnorderedSet(k=1, has_baseline=True)
