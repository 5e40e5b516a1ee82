"""Building a law from a class and its arguments."""

from __future__ import annotations

import pytest
import torch
from torch import distributions as td

from scg.errors import GraphError
from scg.laws import bind, law_for, law_of


def test_numbers_become_tensors_like_their_neighbours() -> None:
    law, parameters = law_for(td.Normal, {"loc": torch.zeros(3, dtype=torch.float64), "scale": 2})
    assert parameters["scale"].dtype == torch.float64 and parameters["scale"].shape == ()
    assert law.batch_shape(parameters) == (3,)
    assert law_for(td.Normal, {"loc": 0, "scale": 1})[1]["loc"].dtype == torch.get_default_dtype()


def test_defaults_of_the_constructor_are_kept() -> None:
    _, parameters = law_for(td.StudentT, {"df": torch.tensor(3.0)})
    assert parameters["loc"].item() == 0.0 and parameters["scale"].item() == 1.0


def test_live_parameters_are_the_tensors_themselves() -> None:
    logits = torch.zeros(2, requires_grad=True)
    assert law_for(td.Categorical, {"logits": logits})[1]["logits"] is logits
    assert law_of(td.Bernoulli(logits=logits))[1]["logits"] is logits


def test_cached_properties_do_not_change_the_parameter() -> None:
    dist = td.Bernoulli(probs=torch.tensor([0.0, 0.3]))
    assert dist.logits is not None
    assert law_of(dist)[0].parameters == ("probs",)
    assert law_of(td.Bernoulli(probs=torch.tensor(0.3)).expand([4, 2]))[0].parameters == ("probs",)


def test_static_arguments() -> None:
    law, parameters = law_for(td.Binomial, {"total_count": 3, "probs": torch.tensor(0.5)})
    assert law.finite and law.support(parameters).tolist() == [0.0, 1.0, 2.0, 3.0]
    law, _ = law_for(td.Binomial, {"total_count": torch.tensor([2.0, 3.0]), "probs": torch.tensor(0.5)})
    assert not law.finite and law.parameters == ("total_count", "probs")
    assert law_of(td.Binomial(3, torch.tensor(0.5)))[0].finite


def test_bind_names_positional_arguments() -> None:
    assert bind(td.Binomial, (3,), {"logits": 0.0}) == {"total_count": 3, "logits": 0.0}
    with pytest.raises(GraphError, match="Normal: .*Write Normal"):
        bind(td.Normal, (1, 2, 3, 4, 5), {})


@pytest.mark.parametrize(
    "cls, arguments, message",
    [
        (td.Bernoulli, {}, "exactly one of probs, logits, found none"),
        (td.Bernoulli, {"probs": 0.1, "logits": 0.1}, "found probs and logits"),
        (td.Normal, {"loc": 0.0}, "Normal needs 'scale'. Write loc=..., scale=..."),
        (td.Normal, {"loc": 0.0, "sigma": 1.0}, "no argument 'sigma'. Write loc=..., scale=..."),
    ],
)
def test_wrong_arguments(cls: type, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        law_for(cls, arguments)


def test_violations_name_the_parameter() -> None:
    law, parameters = law_for(td.Normal, {"loc": 0.0, "scale": torch.tensor([1.0, -1.0])})
    assert law.violations(parameters) == "scale must satisfy GreaterThan(lower_bound=0.0), found -1.0"
    law, parameters = law_for(td.Uniform, {"low": 2.0, "high": 1.0})
    assert law.violations(parameters) == "low must satisfy low < high, found 2.0 and 1.0"


def test_broadcast_parameters_of_a_number_and_a_row() -> None:
    law, parameters = law_for(td.OneHotCategorical, {"logits": torch.zeros(1, 3)})
    value = law.draw(parameters, torch.rand(5, 4, 3))
    assert value.shape == (5, 4, 3) and law.log_prob(parameters, value).shape == (5, 4)
