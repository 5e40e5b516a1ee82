"""Laws: what is shown of each is shown of its code, and a fault in it is seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, distributions

from scg.evaluation.densities import taken_apart
from scg.laws.bernoulli import Bernoulli
from scg.laws.categorical import Categorical
from scg.laws.law import Law
from scg.proving.laws import shown


def three() -> dict[str, Tensor]:
    return {"logits": torch.tensor([0.3, 0.1, -0.2])}


@pytest.mark.parametrize(
    ("law", "parameters"),
    [
        (Bernoulli("logits"), {"logits": torch.tensor(0.3)}),
        (Bernoulli("probs"), {"probs": torch.tensor(0.3)}),
        (Categorical("logits"), {"logits": torch.tensor([0.3, 0.1])}),
        (Categorical("logits", one_hot=True), three()),
        (Categorical("probs"), {"probs": torch.tensor([0.3, 0.7])}),
    ],
)
def test_a_relaxable_law_is_shown_to_be_what_control_variates_need(
    law: Law, parameters: Mapping[str, Tensor]
) -> None:
    steps = shown(law, parameters, relaxed=True)
    assert len(steps) >= 4
    assert {step.standing for step in steps} == {"proved"}, [str(step) for step in steps]


@pytest.mark.parametrize(
    "made",
    [
        distributions.Normal(0.3, 0.8),
        distributions.LogNormal(0.3, 0.8),
        distributions.Uniform(0.3, 0.8),
        distributions.Exponential(0.8),
    ],
)
def test_a_continuous_law_is_the_transport_of_its_noise(made: distributions.Distribution) -> None:
    law, parameters = taken_apart(made)
    assert [step.standing for step in shown(law, parameters, relaxed=False)] == ["proved"] * 2


@dataclass(frozen=True)
class Shifted(Bernoulli):
    """A coin that is drawn at another place than its density has it."""

    def draw(self, parameters: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        return super().draw({"logits": parameters["logits"] + 0.1}, noise)


@dataclass(frozen=True)
class Untied(Bernoulli):
    """A coin whose z~ is drawn at another place."""

    def conditional(self, parameters: Mapping[str, Tensor], value: Tensor, noise: Tensor) -> Tensor:
        return super().conditional({"logits": 0.9 * parameters["logits"]}, value, noise)


@dataclass(frozen=True)
class Loose(Categorical):
    """A choice whose z~ ignores the logits below the greatest."""

    def conditional(self, parameters: Mapping[str, Tensor], value: Tensor, noise: Tensor) -> Tensor:
        return super().conditional({"logits": 0.9 * parameters["logits"]}, value, noise)


@pytest.mark.parametrize(
    ("law", "parameters", "claim"),
    [
        (Shifted("logits"), {"logits": torch.tensor(0.3)}, "every outcome"),
        (Untied("logits"), {"logits": torch.tensor(0.3)}, "z~ has, given b"),
        (Loose("logits"), {"logits": torch.tensor([0.3, 0.1])}, "(b, z~) have"),
    ],
)
def test_a_fault_of_a_law_fails(law: Law, parameters: Mapping[str, Tensor], claim: str) -> None:
    steps = shown(law, parameters, relaxed=True)
    assert [step.standing for step in steps if step.claim.startswith(claim)] == ["failed"]
