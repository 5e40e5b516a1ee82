"""REBAR: a control variate from the cost at relaxed values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.laws import Relaxable
from scg.surrogate.estimators.base import Action, Estimator, NodeFacts, Remedy
from scg.surrogate.estimators.site import Site
from scg.surrogate.estimators.variates import (
    Controls,
    Positive,
    Variate,
    check_baseline,
    conditioned,
    first_rough,
    relaxed_costs,
)

SHORT = 64
"""The most nodes below a node for which automatic choice evaluates them two times more."""


@dataclass(frozen=True, eq=False)
class REBAR(Estimator):
    """(f(b) - c(z~)) dlog p(b) + dc(z) - dc(z~) with c(z) = eta f(relax(z)), b = H(z), z~ from p(z | b).

    The temperature of the relaxation and eta start as given, or one for each plate element as tensors, and
    descend the variance unless ``tune=False``. Tucker et al. (2017, "REBAR: Low-variance, unbiased gradient
    estimates for discrete latent variable models", arXiv:1703.07370).
    """

    name: ClassVar[str] = "rebar"
    preference: ClassVar[int] = 2
    noises: ClassVar[int] = 1
    perturbs: ClassVar[bool] = True

    temperature: float | Tensor = 0.5
    eta: float | Tensor = 1.0
    tune: bool = True
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is not positive."""
        check_baseline(self.baseline)
        for name in ("temperature", "eta"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, Tensor)):
                raise EstimatorError(f"{name} is a number or a tensor, not {value!r}")
            numbers = torch.as_tensor(value)
            if not bool(((numbers > 0) & numbers.isfinite()).all()):
                raise EstimatorError(f"{name} is positive and finite, not {value}")

    @classmethod
    def passed_over(cls, facts: NodeFacts) -> str | None:
        """Leave long chains to cheaper estimators, and costs that are only partly smooth."""
        if not isinstance(facts.law, Relaxable):
            return None
        if not facts.is_short(SHORT):
            return f"more than {SHORT} nodes lie below, which it would evaluate again"
        return first_rough(facts) if facts.slice().obstacles else None

    @property
    def action(self) -> Action:
        """The value passes on detached."""
        return Action.CUT

    def refuses(self, facts: NodeFacts) -> str | None:
        """Refuse laws without a relaxation, and nodes none of whose costs is smooth at relaxed values."""
        if not isinstance(facts.law, Relaxable):
            return f"a {facts.law.family} cannot be relaxed"
        for name in ("temperature", "eta"):
            shape = tuple(getattr(getattr(self, name), "shape", ()))
            if shape and shape != facts.plates[len(facts.plates) - len(shape) :]:
                return Remedy(
                    f"{name} has shape {shape} and the plates of the node {facts.plates}: give one number, "
                    "or one for each plate element"
                )
        if self.baseline is not None and (facts.samples or 1) < 2:
            return Remedy("leave-one-out compares replicates: compile with samples=2 or more")
        if getattr(self.temperature, "shape", ()) and facts.slice().draws:
            return Remedy(
                f"one temperature for each plate element does not reach {facts.slice().draws[0]!r} below: "
                "give one number"
            )
        if facts.reaches_cost and not facts.slice().smooth:
            return f"it needs a cost at relaxed values, and {first_rough(facts)}"
        return None

    def controls(self, facts: NodeFacts) -> nn.Module:
        """Return the temperature and eta."""
        return Controls(
            Positive(self.temperature, facts.dtype, is_learned=self.tune),
            Positive(self.eta, facts.dtype, is_learned=self.tune),
        )

    def evaluations(self, facts: NodeFacts) -> int:
        """Return 3: the sample, z and z~."""
        return 3

    def relaxes(self, facts: NodeFacts) -> bool:
        """Return whether there is a cost to relax."""
        return facts.reaches_cost

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in temperature and eta."""
        assert isinstance(site.controls, Controls)
        assert site.controls.temperature is not None and site.controls.eta is not None
        temperature, eta = site.controls.temperature.value, site.controls.eta.value

        def variate(points: Tensor) -> Variate:
            return relaxed_costs(site, points, temperature)

        return conditioned(site, variate, baseline=self.baseline, scale=eta)
