"""The law of a value from one of K components of the same family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch import distributions as td

from scg.laws.categorical import Categorical
from scg.laws.law import Law, Parameters, Reach, part


@dataclass(frozen=True)
class Mixture(Law):
    """One of K components: parameters ``mixture.*`` and ``component.*``, which have K last in their batch."""

    mixture: Categorical
    component: Law

    @property
    def family(self) -> str:
        """``Mixture(...)``."""
        return f"Mixture({self.component.family})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """``mixture.*``, then ``component.*``."""
        inner = tuple(f"component.{name}" for name in self.component.parameters)
        return (f"mixture.{self.mixture.given}", *inner)

    @property
    def finite(self) -> bool:
        """As the component."""
        return self.component.finite

    @property
    def discrete(self) -> bool:
        """As the component."""
        return self.component.discrete

    @property
    def value_rank(self) -> int:
        """That of the component."""
        return self.component.value_rank

    def reach(self, parameters: Parameters | None = None) -> Reach:
        """As the component."""
        return self.component.reach(None if parameters is None else part(parameters, "component"))

    def movers(self, parameters: Parameters) -> tuple[str, ...]:
        """Those of the component."""
        return tuple(f"component.{name}" for name in self.component.movers(part(parameters, "component")))

    def event_rank(self, name: str) -> int:
        """That of the part, and K for the component."""
        owner, _, inner = name.partition(".")
        return 1 if owner == "mixture" else self.component.event_rank(inner) + 1

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """The shape of the values."""
        return batch + self.distribution(parameters).event_shape

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The value itself."""
        return noise

    def _each(self, parameters: Parameters, value: Tensor) -> Tensor:
        spread = value.unsqueeze(-1 - self.value_rank)
        return self.component.log_prob(part(parameters, "component"), spread)

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """``log sum_k pi_k p_k``, with a zero gradient where every component excludes the value."""
        weights = self.mixture.log_probabilities(part(parameters, "mixture"))
        joint = weights + self._each(parameters, value)
        empty = joint.detach().amax(-1) == -torch.inf
        safe = torch.where(empty.unsqueeze(-1), 0.0, joint)
        return torch.where(empty, -torch.inf, torch.logsumexp(safe, -1))

    def support(self, parameters: Parameters) -> Tensor:
        """The component's."""
        return self.component.support(part(parameters, "component"))

    def mass(self, parameters: Parameters) -> Tensor:
        """``sum_k pi_k p_k`` of each value."""
        weights = self.mixture.probabilities(part(parameters, "mixture"))
        return (weights * self.component.mass(part(parameters, "component"))).sum(-1)

    def mode(self, parameters: Parameters) -> Tensor:
        """The greedy value of the likeliest component."""
        rank = self.value_rank
        with torch.no_grad():
            each = self.component.mode(part(parameters, "component"))
            best = self.mixture.mode(part(parameters, "mixture"))
            batch = self.batch_shape(parameters)
            each = each.expand(batch + each.shape[each.dim() - rank - 1 :])
            index = best.expand(batch).reshape(batch + (1,) * (rank + 1))
            return torch.take_along_dim(each, index, len(batch)).squeeze(len(batch))

    def violations(self, parameters: Parameters) -> str | None:
        """Those of the mixture, then those of the component."""
        for name, law in (("mixture", self.mixture), ("component", self.component)):
            found = law.violations(part(parameters, name))
            if found is not None:
                return f"{name}.{found}"
        return None

    def distribution(self, parameters: Parameters) -> td.Distribution:
        """``torch.distributions.MixtureSameFamily``."""
        batch = self.batch_shape(parameters)
        full = self.expand(parameters, batch)
        component = self.component.distribution(part(full, "component"))
        given = self.mixture.given
        mixture = td.Categorical(**{given: full[f"mixture.{given}"]}, validate_args=False)
        return td.MixtureSameFamily(mixture, component, validate_args=False)
