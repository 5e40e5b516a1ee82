"""What relaxable laws have in common: a value is a hard step of a continuous, reparameterised variable."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scg.laws.finite import Finite
from scg.laws.law import Law, Parameters
from scg.laws.numbers import is_transformed


@dataclass(frozen=True)
class Relaxable(Finite):
    """A finite law whose value is ``H(z)``, for the control variates of REBAR and RELAX.

    Laws of a law (Tucker et al. 2017; Grathwohl et al. 2018), for fresh noise ``u`` and ``v`` on (0, 1):

    - ``perturbed(parameters, u) = location(parameters) + standard(u)``.
    - ``draw(parameters, u) = H(perturbed(parameters, u))`` for a fixed step ``H``.
    - ``conditional(parameters, b, v)`` has the law of ``z = perturbed(parameters, u)`` given ``H(z) = b``.
    - Both are attached to the parameters and finite for every valid one, and so are two derivatives.
    - What is ``recovered`` is not ``u`` but ``standard(u)``, which is added to the location:
      ``H(location(parameters) + recovered(parameters, b, v)) = b``, with the law of ``standard(u)`` for
      a ``b`` of this law.
    """

    @abstractmethod
    def standard(self, noise: Tensor) -> Tensor:
        """The variable ``z`` at location 0, of uniform noise of shape ``noise_shape``."""

    @abstractmethod
    def location(self, parameters: Parameters) -> Tensor:
        """What ``z`` is moved by."""

    @abstractmethod
    def hardened(self, z: Tensor, parameters: Parameters) -> Tensor:
        """The step ``H(z)``, in the type of a value."""

    def perturbed(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The variable ``z`` of noise of shape ``noise_shape``."""
        return self.location(parameters) + self.standard(noise)

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """``H(z)``."""
        return self.draw_standard(parameters, self.standard(noise))

    def draw_standard(self, parameters: Parameters, standard: Tensor) -> Tensor:
        """``H(z)`` from ``z`` at location 0."""
        given: Parameters = {self.given: parameters[self.given].detach()}
        return self.hardened(self.location(given) + standard, given)

    @abstractmethod
    def conditional(self, parameters: Parameters, value: Tensor, noise: Tensor) -> Tensor:
        """Draw ``z`` given its hard value, from fresh noise of shape ``noise_shape``."""

    @property
    def recovers(self) -> bool:
        """Always: the noise that is added to the location."""
        return True

    def recovered(self, parameters: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
        """``z`` given its hard value, minus the location: ``draw_standard`` of it is ``value``."""
        location = self.location(parameters)
        return self.settled(location, value, self.conditional(parameters, value, fresh) - location)

    @abstractmethod
    def settled(self, location: Tensor, value: Tensor, standard: Tensor) -> Tensor:
        """``standard``, with ``H(location + standard) = value`` also where rounding has made that a tie."""

    @abstractmethod
    def relax(self, z: Tensor, temperature: Tensor | float) -> Tensor:
        """A soft value, which tends to ``H(z)`` as the temperature, of batch shape, tends to 0."""

    def points(
        self, parameters: Parameters, standard: Tensor, value: Tensor, fresh: Tensor
    ) -> tuple[Tensor, Callable[[Tensor], dict[str, Tensor]]]:
        """``z`` and ``z`` given its value, stacked and detached, and the way back to the parameters.

        That turns derivatives in the points into derivatives in the parameters, attached to the former.
        """

        def both(leaf: Tensor) -> Tensor:
            leaves = {**parameters, self.given: leaf}
            return torch.stack((self.location(leaves) + standard, self.conditional(leaves, value, fresh)))

        given = parameters[self.given].detach()
        if is_transformed():
            return both(given), lambda slopes: {self.given: _pulled(both, given, slopes)}
        with torch.enable_grad():
            leaf = given.requires_grad_()
            stacked = both(leaf)

        def back(slopes: Tensor) -> dict[str, Tensor]:
            (gradient,) = torch.autograd.grad(stacked, leaf, slopes, create_graph=slopes.requires_grad)
            return {self.given: gradient}

        return stacked.detach(), back

    @property
    @abstractmethod
    def soft(self) -> Law:
        """The law whose ``log_prob`` takes what ``relax`` returns."""


def _pulled(fn: Callable[[Tensor], Tensor], at: Tensor, slopes: Tensor) -> Tensor:
    """Return the derivative of ``<slopes, fn>``, attached to the slopes."""
    return torch.func.grad(lambda leaf: (slopes * fn(leaf)).sum())(at)  # type: ignore[no-any-return]
