"""Nested distributions: taken apart, drawn, scored and checked."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributions as td

from scg.errors import GraphError
from scg.laws import law_of

F64 = torch.float64


def leaf(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=F64, requires_grad=True)


def normal(*batch: int) -> td.Normal:
    return td.Normal(torch.randn(batch, dtype=F64), torch.rand(batch, dtype=F64) + 0.5)


def mixture(component: td.Distribution, *batch: int) -> td.MixtureSameFamily:
    return td.MixtureSameFamily(td.Categorical(logits=torch.randn(batch, dtype=F64)), component)


NESTED: dict[str, Any] = {
    "independent": lambda: td.Independent(normal(2, 3), 1),
    "tanh": lambda: td.TransformedDistribution(td.Independent(normal(2, 3), 1), [td.TanhTransform()]),
    "sticks": lambda: td.TransformedDistribution(normal(2, 3), [td.StickBreakingTransform()]),
    "affine": lambda: td.TransformedDistribution(
        normal(2, 3),
        [td.AffineTransform(leaf(1, 2, 3), 2.0), td.ExpTransform(), td.PowerTransform(leaf(0.5))],
    ),
    "logistic": lambda: td.TransformedDistribution(
        td.Uniform(torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)),
        [td.SigmoidTransform().inv, td.AffineTransform(leaf(1, 2, 3), leaf(1, 2, 1))],
    ),
    "gamma": lambda: td.TransformedDistribution(
        td.Gamma(leaf(2, 3, 4), leaf(1, 2, 1)), [td.AffineTransform(0.0, leaf(2.0))]
    ),
    "composed": lambda: td.TransformedDistribution(
        normal(2, 3),
        [
            td.ComposeTransform(
                [td.AffineTransform(leaf(1.0), leaf(2.0)).inv, td.IndependentTransform(td.ExpTransform(), 1)]
            )
        ],
    ),
    "mixture": lambda: mixture(normal(2, 3), 2, 3),
    "vectors": lambda: mixture(td.Independent(normal(2, 3, 4), 1), 2, 3),
    "wide": lambda: mixture(td.Independent(normal(3, 4), 1), 3),
    "bernoulli": lambda: mixture(td.Bernoulli(logits=torch.randn(2, 3, dtype=F64)), 2, 3),
    "nested": lambda: td.Independent(
        mixture(td.TransformedDistribution(normal(2, 3), [td.ExpTransform()]), 2, 3), 1
    ),
}


@pytest.fixture(params=NESTED)
def dist(request: pytest.FixtureRequest) -> td.Distribution:
    torch.manual_seed(0)
    made: td.Distribution = NESTED[request.param]()
    return made


def summed(log_prob: Tensor, rank: int) -> Tensor:
    return log_prob.sum(tuple(range(-rank, 0))) if rank else log_prob


def test_log_prob_is_torchs(dist: td.Distribution) -> None:
    law, parameters = law_of(dist)
    value = dist.sample(torch.Size([5]))
    ours = law.log_prob(parameters, value)
    expected = dist.log_prob(value)
    torch.testing.assert_close(summed(ours, ours.dim() - expected.dim()), expected)
    assert set(parameters) == set(law.parameters)
    for name in law.parameters:
        assert law.event_rank(name) <= parameters[name].dim() or parameters[name].numel() == 1


def test_round_trip_pickle_and_copy(dist: td.Distribution) -> None:
    law, parameters = law_of(dist)
    again, same = law_of(law.distribution(parameters))
    assert again == law
    assert set(same) == set(parameters)
    assert copy.deepcopy(law).parameters == pickle.loads(pickle.dumps(law)).parameters == law.parameters


def test_shapes_under_more_batch_dims(dist: td.Distribution) -> None:
    law, parameters = law_of(dist)
    batch = torch.Size([4, 5]) + law.batch_shape(parameters)
    if law.noise == "value":
        noise = law.sample(parameters, batch)
    else:
        noise = torch.rand(law.noise_shape(parameters, batch), dtype=F64)
    value = law.draw(parameters, noise)
    assert value.shape == torch.Size([4, 5]) + dist.sample().shape
    assert law.log_prob(law.expand(parameters, batch), value).shape == batch
    assert (
        law.log_prob(
            {k: v.expand(4, 1, *v.shape) if v.dim() > 1 else v for k, v in parameters.items()}, value
        ).shape
        == batch
    )
    assert law.mode(parameters).shape == value.shape[2:]
    assert value.requires_grad is (
        law.pathwise is not None and any(p.requires_grad for p in parameters.values())
    )
    if law.noise == "value":
        assert value.equal(noise)


def test_implicit_derivative_through_a_transform() -> None:
    law, parameters = law_of(NESTED["gamma"]())
    value = law.sample(parameters, torch.Size([3]))
    scale = parameters["transform0.scale"]
    (slope,) = torch.autograd.grad(law.draw(parameters, value).sum(), scale)
    torch.testing.assert_close(slope, (value / scale.detach()).sum().reshape(1))


def test_moving_support() -> None:
    zero, one, free = torch.zeros(2), torch.ones(2), torch.ones(2, requires_grad=True)
    logistic = [td.SigmoidTransform().inv, td.AffineTransform(free, free)]
    table = [
        (td.Normal(free, free), None),
        (td.Uniform(zero, free), "high"),
        (td.Uniform(free, free + 1), "low"),
        (td.Pareto(free, free), "scale"),
        (td.Independent(td.Uniform(zero, free), 1), "high"),
        (td.TransformedDistribution(td.Normal(free, free), [td.AffineTransform(free, free)]), None),
        (td.TransformedDistribution(td.Exponential(free), [td.AffineTransform(0, free)]), None),
        (td.TransformedDistribution(td.Exponential(free), [td.AffineTransform(free, 1)]), "transform0.loc"),
        (td.TransformedDistribution(td.Beta(free, free), [td.AffineTransform(0, free)]), "transform0.scale"),
        (
            td.TransformedDistribution(
                td.Normal(free, free), [td.TanhTransform(), td.AffineTransform(0, free)]
            ),
            "transform1.scale",
        ),
        (mixture(td.Uniform(zero, free), 2), "component.high"),
        (mixture(td.Normal(zero, free), 2), None),
    ]
    for dist, expected in table:
        law, parameters = law_of(dist)
        assert law.moving_support(parameters) == expected, dist
    law, parameters = law_of(td.TransformedDistribution(td.Uniform(zero, one), logistic))
    named = law.moving_support(parameters)
    assert named is None or not parameters[named].requires_grad


def test_unbounded() -> None:
    one = torch.ones(2)
    assert law_of(td.Normal(one, one))[0].unbounded
    assert law_of(td.MultivariateNormal(one, torch.eye(2)))[0].unbounded
    assert not law_of(td.Gamma(one, one))[0].unbounded
    assert not law_of(td.VonMises(one, one))[0].unbounded
    assert not law_of(td.TransformedDistribution(td.Normal(one, one), [td.ExpTransform()]))[0].unbounded


def test_transformed_atoms_keep_their_mass() -> None:
    dist = td.TransformedDistribution(td.Bernoulli(torch.tensor(0.3)), [td.AffineTransform(-1.0, 2.0)])
    law, parameters = law_of(dist)
    assert law.finite and law.support(parameters).tolist() == [-1.0, 1.0]
    torch.testing.assert_close(
        law.log_prob(parameters, law.support(parameters)).exp(), torch.tensor([0.7, 0.3])
    )


def test_impossible_and_degenerate_mixtures() -> None:
    weight = torch.tensor([1.0, 0.0], requires_grad=True)
    dist = td.MixtureSameFamily(td.Categorical(probs=weight), td.Uniform(torch.zeros(2), torch.ones(2)))
    law, parameters = law_of(dist)
    log_prob = law.log_prob(parameters, torch.tensor([0.5, 3.0]))
    assert log_prob.tolist() == [0.0, -torch.inf]
    assert torch.autograd.grad(log_prob.sum(), weight)[0].isfinite().all()


class Scaled(td.Transform):
    domain, codomain, bijective = td.constraints.real, td.constraints.real, True

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.scale = scale


def test_a_transform_that_hides_a_tensor_is_refused() -> None:
    dist = td.TransformedDistribution(normal(2), [Scaled(leaf(1.0))], validate_args=False)
    with pytest.raises(GraphError, match="transform0 is a Scaled whose tensor 'scale' requires grad"):
        law_of(dist)


class Triangular(td.Distribution):
    arg_constraints = {"width": td.constraints.positive}

    def __init__(self, width: Tensor, validate_args: bool | None = None) -> None:
        self.width = width
        super().__init__(width.shape, validate_args=validate_args)

    @td.constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> td.constraints.Constraint:
        return td.constraints.interval(-self.width, self.width)

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self.width * (torch.rand(shape) - torch.rand(shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.rsample(sample_shape).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.log((1 - value.abs() / self.width) / self.width)


class Hiding(td.Distribution):
    arg_constraints: dict[str, Any] = {}

    def __init__(self, scale: nn.Parameter) -> None:
        self._scale = scale
        super().__init__(scale.shape, validate_args=False)


def test_user_classes_are_rebuilt_from_their_constraints() -> None:
    width = torch.tensor([1.0, 2.0], requires_grad=True)
    law, parameters = law_of(td.Independent(Triangular(width), 1))
    assert law.family == "Triangular" and law.parameters == ("width",)
    assert law.noise == "value" and law.pathwise is None and not law.discrete
    assert law.moving_support(parameters) == "width"
    assert parameters["width"] is width
    value = law.sample(parameters, torch.Size([3, 2]))
    assert value.shape == (3, 2) and not value.requires_grad
    assert law.log_prob(parameters, value).requires_grad
    assert (
        law.violations({"width": torch.tensor(-1.0)})
        == "width must satisfy GreaterThan(lower_bound=0.0), found -1.0"
    )
    assert pickle.loads(pickle.dumps(law)) == law


def test_user_classes_that_cannot_be_rebuilt_are_refused() -> None:
    with pytest.raises(GraphError, match="keeps '_scale'.*arg_constraints"):
        law_of(Hiding(nn.Parameter(torch.ones(2))))
