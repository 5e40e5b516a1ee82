"""REBAR: a control variate from the cost at relaxed values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.variates import (
    Controls,
    Positive,
    Remainder,
    Variate,
    conditioned,
    first_rough,
    relaxed_costs,
)
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import NodeFacts, Refusal
from scg.estimators.protocol.kinds import Cut
from scg.estimators.protocol.site import Site
from scg.laws import Relaxable

SHORT = 64
"""The most nodes below a node for which automatic choice evaluates them two times more."""


@dataclass(frozen=True, eq=False)
class REBAR(Remainder, Cut):
    """(f(b) - c(z~)) dlog p(b) + dc(z) - dc(z~) with c(z) = eta f(relax(z)), b = H(z), z~ from p(z | b).

    The temperature of the relaxation and eta start as given, or one for each plate element as tensors, and
    descend the variance unless ``tune=False``. ``baseline``, which learns nothing of its own, is taken from
    the credit besides. ``train_on`` is the share of the elements of a plate, chosen anew in each run, from
    which they learn: their second pass costs as much less. Tucker et al. (2017, "REBAR: Low-variance,
    unbiased gradient estimates for discrete latent variable models", arXiv:1703.07370).
    """

    name: ClassVar[str] = "rebar"
    tried: ClassVar[int | None] = 2

    temperature: float | Tensor = 0.5
    eta: float | Tensor = 1.0
    tune: bool = True
    baseline: Any = None  # what is kept is a Baseline
    train_on: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is not positive, and baselines that would learn."""
        self.check_options()
        for name in ("temperature", "eta"):
            value = getattr(self, name)
            if not isinstance(value, (int, float, Tensor)):
                raise EstimatorError(f"{name} is a number or a tensor, not {value!r}")
            numbers = torch.as_tensor(value)
            if not bool(((numbers > 0) & numbers.isfinite()).all()):
                raise EstimatorError(f"{name} is positive and finite, not {value}")

    @classmethod
    def automatic(cls, facts: NodeFacts) -> REBAR | Refusal:
        """Leave long chains to cheaper estimators, and costs that are only partly smooth."""
        if not isinstance(facts.law, Relaxable):
            return cls()
        if not facts.is_short(SHORT):
            return Refusal(f"more than {SHORT} nodes lie below, which it would evaluate again")
        return Refusal(first_rough(facts)) if facts.slice().obstacles else cls()

    def refuses(self, facts: NodeFacts) -> Refusal | None:
        """Refuse laws without a relaxation, and nodes none of whose costs is smooth at relaxed values."""
        if not isinstance(facts.law, Relaxable):
            return Refusal(f"a {facts.law.family} cannot be relaxed")
        for name in ("temperature", "eta"):
            shape = tuple(getattr(getattr(self, name), "shape", ()))
            if shape and shape != facts.plates[len(facts.plates) - len(shape) :]:
                return Refusal(
                    f"{name} has shape {shape} and the plates of the node {facts.plates}",
                    "give one number, or one for each plate element",
                )
        if getattr(self.temperature, "shape", ()) and facts.slice().draws:
            return Refusal(
                f"one temperature for each plate element does not reach {facts.slice().draws[0]!r} below",
                "give one number",
            )
        if facts.reaches_cost and not facts.slice().smooth:
            return Refusal(f"it needs a cost at relaxed values, and {first_rough(facts)}")
        if self.train_on < 1 and any(getattr(held, "shape", ()) for held in (self.temperature, self.eta)):
            return Refusal("with train_on below 1 temperature and eta are one number each", "give one number")
        return self.cannot_train(facts, relaxed=True) or self.kept.refuses(facts)

    def asks(self, facts: NodeFacts) -> Asks:
        """Ask for z and z~, and for the relaxed cost at both."""
        known = self.asks_of(facts, relaxed=True)
        return replace(known, site=True, fresh=("base",), standard=True, relaxed=2 * facts.reaches_cost)

    def learns(self, facts: NodeFacts) -> nn.Module:
        """Return the temperature and eta."""
        return Controls(
            Positive(self.temperature, facts.dtype, is_learned=self.tune),
            Positive(self.eta, facts.dtype, is_learned=self.tune),
        )

    def gradient(self, site: Site) -> dict[str, Tensor]:
        """Return the estimate, differentiable in temperature and eta."""
        assert isinstance(site.controls, Controls)
        assert site.controls.temperature is not None and site.controls.eta is not None
        temperature, eta = site.controls.temperature.value, site.controls.eta.value

        def variate(points: Tensor) -> Variate:
            return relaxed_costs(site, points, temperature)

        return conditioned(site, variate, baseline=self.kept, scale=eta)
