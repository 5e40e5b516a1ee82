"""A law given by the formulas of one distribution class: a row of a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

from scg.laws.alike import Held
from scg.laws.law import Law, Noise, Parameters, Pathwise, Reach, violation
from scg.laws.numbers import HALVES, wide

Formula = Callable[[Parameters, Tensor], Tensor]
Recovery = Callable[[Parameters, Tensor, Tensor], Tensor]

UNLISTED: Mapping[str, constraints.Constraint] = {
    "temperature": constraints.positive,
    "total_count": constraints.nonnegative_integer,
}
"""Constraints of parameters that some classes leave out of ``arg_constraints``."""


@dataclass(frozen=True)
class Formulas:
    """What is known of one class; every function is a module-level one, so a row pickles.

    ``log_prob`` None is torch's own. ``draw`` maps noise to a value, or, for noise "value", attaches
    the implicit derivative ``dz = -dF/dtheta / p``; None has neither. ``movers`` are the parameters
    on which the support depends, and ``noise_event`` is the shape of one event's noise. ``sample``
    replaces torch's own from parameters of the full batch shape. ``recovered`` maps a value and fresh
    noise to noise that draws the value.
    """

    cls: type[Distribution]
    log_prob: Formula | None = None
    draw: Formula | None = None
    noise: Noise = "value"
    ranks: tuple[tuple[str, int], ...] = ()
    value_rank: int = 0
    discrete: bool = False
    reach: Reach = "bounded"
    movers: tuple[str, ...] = ()
    noise_event: Callable[[Parameters], Size] | None = None
    sample: Callable[[Parameters], Tensor] | None = None
    recovered: Recovery | None = None


@dataclass(frozen=True)
class Elementary(Law):
    """The law of one class, with the parameters it was given and its static arguments."""

    formulas: Formulas
    names: tuple[str, ...]
    static: tuple[tuple[str, Any], ...] = ()

    @property
    def family(self) -> str:
        """Name of the class."""
        return self.formulas.cls.__name__

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names it was given."""
        return self.names

    @property
    def noise(self) -> Noise:
        """As the row says."""
        return self.formulas.noise

    @property
    def discrete(self) -> bool:
        """As the row says."""
        return self.formulas.discrete

    @property
    def pathwise(self) -> Pathwise | None:
        """Explicit from base noise, implicit from a value."""
        if self.discrete or self.formulas.draw is None:
            return None
        return "implicit" if self.noise == "value" else "explicit"

    @property
    def recovers(self) -> bool:
        """As the row says."""
        return self.noise == "value" or self.formulas.recovered is not None

    @property
    def value_rank(self) -> int:
        """As the row says."""
        return self.formulas.value_rank

    def reach(self, parameters: Parameters | None = None) -> Reach:
        """As the row says; uniform laws on the unit interval reach "unit"."""
        if parameters is not None and self.formulas.movers == ("low", "high"):
            low, high = parameters["low"], parameters["high"]
            return "unit" if bool((low == 0).all() and (high == 1).all()) else "bounded"
        return self.formulas.reach

    def movers(self, parameters: Parameters) -> tuple[str, ...]:
        """As the row says."""
        return self.formulas.movers

    def event_rank(self, name: str) -> int:
        """As the row says."""
        return next((rank for key, rank in self.formulas.ranks if key == name), 0)

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """``batch`` and the shape of one event's noise; a value law has the shape of its values."""
        if self.formulas.noise_event is not None:
            return batch + self.formulas.noise_event(parameters)
        if self.value_rank:
            return batch + self.distribution(parameters).event_shape
        return batch

    def drawer(self, parameters: Parameters) -> Callable[[Parameters, Tensor], Tensor]:
        """The formula itself, where nothing is to be widened or detached."""
        formula = self.formulas.draw
        is_plain = _widened(parameters) is parameters and not self.discrete
        return formula if formula is not None and is_plain else self.draw

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The row's formula, detached for a discrete law."""
        formulas = self.formulas
        if formulas.draw is None:
            return noise
        if not formulas.discrete:
            return formulas.draw(_widened(parameters), noise)
        with torch.no_grad():
            return formulas.draw(_widened(parameters), noise)

    def recovered(self, parameters: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
        """The row's formula."""
        formula = self.formulas.recovered
        if formula is None:
            return super().recovered(parameters, value, fresh)
        return formula(_widened(parameters), wide(value), fresh)

    def sample(self, parameters: Parameters, batch: Size) -> Tensor:
        """The row's sampler, or torch's."""
        if self.formulas.sample is None:
            return super().sample(parameters, batch)
        with torch.no_grad():
            return self.formulas.sample(self.expand(parameters, batch))

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """The row's formula, or torch's."""
        if self.formulas.log_prob is not None:
            return self.formulas.log_prob(_widened(parameters), wide(value))
        return self.distribution(_widened(parameters)).log_prob(wide(value))

    def mode(self, parameters: Parameters) -> Tensor:
        """The mode where the class has a finite one, else the mean, else the draw at central noise."""
        with torch.no_grad():
            return _greedy(self, parameters)

    def violations(self, parameters: Parameters) -> str | None:
        """The first parameter outside the class's ``arg_constraints``, and ``low >= high``."""
        known = _constraints(self, parameters)
        for name in self.names:
            constraint = known.get(name, UNLISTED.get(name, constraints.real))
            tensor = parameters[name]
            if constraint is constraints.simplex:
                tensor = tensor / tensor.sum(-1, keepdim=True)
            found = violation(name, constraint, tensor)
            if found is not None:
                return found
        return _misordered(parameters) if self.formulas.movers == ("low", "high") else None

    def distribution(self, parameters: Parameters) -> Distribution:
        """The class with these parameters."""
        tensors = {name: parameters[name] for name in self.names}
        held = {key: item.value if isinstance(item, Held) else item for key, item in self.static}
        return rebuild(self.formulas.cls, {**tensors, **held})


def rebuild(cls: type[Distribution], arguments: dict[str, Any]) -> Distribution:
    """Call a distribution class without validation, whether or not it takes ``validate_args``."""
    takes = cls.__init__.__code__.co_varnames if hasattr(cls.__init__, "__code__") else ()
    dist = cls(**arguments, validate_args=False) if "validate_args" in takes else cls(**arguments)
    dist._validate_args = False
    return dist


def _widened(parameters: Parameters) -> Parameters:
    for tensor in parameters.values():  # on every call: cheaper than any() over a generator
        if tensor.dtype in HALVES:
            return {name: wide(leaf) for name, leaf in parameters.items()}
    return parameters


def _constraints(law: Elementary, parameters: Parameters) -> dict[str, constraints.Constraint]:
    """Of the class, or of an instance where they depend on the parameters, as in ``Wishart``."""
    known: Any = law.formulas.cls.arg_constraints
    if isinstance(known, property):
        usable = law.formulas.movers != ("low", "high") and not any(
            t.isnan().any() for t in parameters.values()
        )
        known = law.distribution(parameters).arg_constraints if usable else {}
    return dict(known)


def _misordered(parameters: Parameters) -> str | None:
    low, high = torch.broadcast_tensors(parameters["low"], parameters["high"])
    wrong = ~(low < high)
    if not wrong.any():
        return None
    return f"low must satisfy low < high, found {low[wrong][0].item()} and {high[wrong][0].item()}"


def _greedy(law: Elementary, parameters: Parameters) -> Tensor:
    dist = law.distribution(law.expand(parameters, law.batch_shape(parameters)))
    try:
        mode = dist.mode
    except NotImplementedError:
        return _central(law, parameters, dist)
    return torch.where(torch.isfinite(mode), mode, dist.mean) if mode.is_floating_point() else mode


def _central(law: Elementary, parameters: Parameters, dist: Distribution) -> Tensor:
    if law.noise != "value" and not law.discrete:
        shape = law.noise_shape(parameters, law.batch_shape(parameters))
        like = parameters[law.names[0]]
        return law.draw(parameters, like.new_full(shape, 0.5 if law.noise == "uniform" else 0.0))
    try:
        return dist.mean
    except NotImplementedError as error:
        raise NotImplementedError(
            f"{law.family} has neither a mode nor a mean to act greedily on."
        ) from error
