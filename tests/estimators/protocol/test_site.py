"""What sites give estimators to compute with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

import scg
from scg.estimators.protocol.facts import Axis
from scg.estimators.protocol.site import Site, derivative, left_out
from tests.estimators.building import of, site


def test_the_mean_over_the_others_is_exact() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [0.0, -1.0, 4.0]]).double()
    for row, found in zip(values, left_out(values, 1), strict=True):
        others = [torch.cat((row[:index], row[index + 1 :])).mean() for index in range(3)]
        assert torch.allclose(found, torch.stack(others))
    assert left_out(values.T, 0).equal(left_out(values, 1).T)


def test_a_single_element_has_the_baseline_0() -> None:
    assert left_out(torch.tensor([[3.0]])).equal(torch.zeros(1, 1))


def ordered(**changed: Any) -> Site:
    """Two steps, of which the second counts half."""
    parameters = {"loc": of(0.3, -0.2), "scale": of(1.0, 0.5)}
    axes = (Axis("time", 2, is_mean=False, discount=0.5),)
    return site(Normal, parameters, of(0.4, -1.0), lambda x: x**2, axes=axes, share=of(1.0, 0.5), **changed)


def test_a_total_counts_steps_by_their_share() -> None:
    values = torch.tensor([[1.0, 2.0], [4.0, 8.0]], dtype=torch.double)
    assert ordered().total(values).tolist() == [2.0, 8.0]
    assert site(Normal, {"loc": of(0.3), "scale": of(1.0)}, of(0.4), torch.square).total(
        values[0]
    ).tolist() == [1, 2]


def test_derivatives_of_a_total_are_in_the_units_of_credit() -> None:
    made = ordered()

    def total(parameters: dict[str, Tensor]) -> tuple[Tensor, None]:
        return made.total(made.law.draw(parameters, made.noise)[None] ** 2)[0], None

    found, _ = made.derivative(total)
    assert torch.allclose(found["loc"], 2 * made.value)
    assert torch.allclose(found["scale"], 2 * made.value * made.noise)


def test_every_kind_of_fresh_noise_is_its_own() -> None:
    made = ordered(provided={"fresh": (of(0.1, 0.2), of(0.3, 0.4))})
    assert made.fresh_noise().tolist() == [0.1, 0.2]
    assert made.fresh_noise(1).tolist() == [0.3, 0.4]
    with pytest.raises(scg.EstimatorError, match=r"Asks\(fresh=\(3 kinds\)\)"):
        made.fresh_noise(2)


def test_weighed_derivatives_are_the_same_under_transforms() -> None:
    weights = of(1.0, -1.0)

    def slope(scale: Tensor) -> Tensor:
        at = {"x": of(0.2, 0.7)}
        found, _ = derivative(lambda p: (scale * p["x"] ** 3, ()), at, attached=False, weights=weights)
        return found["x"]

    scales = of(1.0, 2.5)
    wanted = torch.stack([slope(scale) for scale in scales])
    assert torch.allclose(torch.func.vmap(slope)(scales), wanted)
    assert torch.allclose(wanted[0], of(3 * 0.2**2, -3 * 0.7**2))
