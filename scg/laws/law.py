"""What a law is: one family of distributions, as pure functions of parameter tensors and base noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints

Parameters = Mapping[str, Tensor]
Noise = Literal["uniform", "normal", "value"]
Pathwise = Literal["explicit", "implicit"]
Reach = Literal["reals", "half-line", "unit", "bounded"]


class Law(ABC):
    """A family of distributions without its parameters: static structure only.

    A parameter tensor has the dims ``[batch..., its event_rank dims]``; batch dims broadcast from the
    right, so they may be 1 or missing. A value has ``value_rank`` event dims. Laws of a law:

    - ``draw(parameters, noise)`` has the law that ``log_prob`` describes, for noise of the kind
      ``noise``: open uniform, standard normal, or ("value") a value that ``sample`` drew.
    - ``draw`` is attached to the parameters exactly where ``pathwise`` is not None, and then
      ``E d f(draw)`` is the gradient of ``E f`` for smooth ``f``.
    - Where the law ``recovers``, ``draw(parameters, recovered(parameters, value, fresh))`` is ``value``
      up to rounding, and for a ``value`` of this law and ``fresh`` base noise of its own, what is
      recovered has the law of base noise.
    """

    @property
    @abstractmethod
    def family(self) -> str:
        """Readable name, such as "Bernoulli"."""

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the tensor parameters."""

    @property
    def noise(self) -> Noise:
        """Kind of base noise; "value" where there is no base-noise form."""
        return "value"

    @property
    def finite(self) -> bool:
        """Whether ``support`` can list every value."""
        return False

    @property
    def has_fixed_support(self) -> bool:
        """Whether ``support`` depends on the shape and type of the parameters alone."""
        return False

    @property
    def discrete(self) -> bool:
        """Whether values are atoms."""
        return False

    @property
    def pathwise(self) -> Pathwise | None:
        """How ``draw`` is differentiable in the parameters with the right gradient, if it is."""
        return None

    @property
    def twice(self) -> bool:
        """Whether second derivatives through ``draw`` are right."""
        return self.pathwise == "explicit"

    @property
    def recovers(self) -> bool:
        """Whether there is a ``recovered``: always for values that are their own noise."""
        return self.noise == "value"

    @property
    def unbounded(self) -> bool:
        """Whether the density is positive over all reals for every parameter."""
        return self.reach() == "reals"

    @property
    def value_rank(self) -> int:
        """How many trailing dims of a value belong to one event."""
        return 0

    def reach(self, parameters: Parameters | None = None) -> Reach:
        """Shape of the support; live parameters may narrow "bounded" to "unit"."""
        return "bounded"

    def movers(self, parameters: Parameters) -> tuple[str, ...]:
        """Names of the parameters on which the support depends."""
        return ()

    def moving_support(self, parameters: Parameters) -> str | None:
        """Name a parameter on which the support depends, one that requires grad where there is one."""
        names = self.movers(parameters)
        return next((name for name in names if parameters[name].requires_grad), next(iter(names), None))

    def event_rank(self, name: str) -> int:
        """How many trailing dims of the parameter ``name`` belong to one event."""
        return 0

    def batch_shape(self, parameters: Parameters) -> Size:
        """Broadcast of the batch dims of the parameters."""
        shapes = (
            tensor.shape[: max(tensor.dim() - self.event_rank(name), 0)]
            for name, tensor in parameters.items()
        )
        return broadcast(*shapes)

    def expand(self, parameters: Parameters, batch: Size) -> dict[str, Tensor]:
        """Return the parameters with the batch dims ``batch``; one without its own event dims as it is."""
        full = {}
        for name, tensor in parameters.items():
            lead = tensor.dim() - self.event_rank(name)
            have = tensor.shape[:lead] if lead >= 0 else batch
            full[name] = tensor if have == batch else tensor.expand(batch + tensor.shape[lead:])
        return full

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """Shape of the base noise of values of batch shape ``batch``."""
        return batch

    @abstractmethod
    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The one map from noise to a value; a "value" law returns ``noise``, bit for bit."""

    def drawer(self, parameters: Parameters) -> Callable[[Parameters, Tensor], Tensor]:
        """The shortest call that does what ``draw`` does to parameters of these types."""
        return self.draw

    def recovered(self, parameters: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
        """Base noise that ``value`` is the draw of, ``draw(parameters, noise) = value``.

        ``fresh`` is base noise of shape ``noise_shape``, which decides where several draw the value.
        """
        if self.noise == "value":
            return value
        raise NotImplementedError(
            f"{self.family} has no way back from a value to its base noise: ask `recovers` first."
        )

    def sample(self, parameters: Parameters, batch: Size) -> Tensor:
        """A detached draw of batch shape ``batch`` from torch's global generator, for "value" laws."""
        with torch.no_grad():
            return self.distribution(self.expand(parameters, batch)).sample()

    @abstractmethod
    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """Log-density or log-mass of each event, with one number for each batch element."""

    def log_prob_over(self, parameters: Parameters, value: Tensor, lead: int) -> Tensor:
        """``log_prob`` summed over all but the ``lead`` leading dims."""
        return sum_event(self.log_prob(parameters, value), lead)

    def score(self, parameters: Parameters, value: Tensor) -> dict[str, Tensor] | None:
        """Derivative of ``log_prob`` in the parameters, element by element; None leaves it to autograd."""
        return None

    def support(self, parameters: Parameters) -> Tensor:
        """Every value of one event, ``[n, *value_event]``; for finite laws only."""
        raise NotImplementedError(f"{self.family} has no finite support to list.")

    def mass(self, parameters: Parameters) -> Tensor:
        """Probability of each value of ``support``, ``[n, *batch]``, with the exact derivative."""
        values = self.support(parameters)
        batch = self.batch_shape(parameters)
        spread = values.reshape(values.shape[:1] + (1,) * len(batch) + values.shape[1:])
        return self.log_prob(parameters, spread).exp()

    @abstractmethod
    def mode(self, parameters: Parameters) -> Tensor:
        """The greedy value, with the batch shape of the parameters."""

    @abstractmethod
    def violations(self, parameters: Parameters) -> str | None:
        """Say which parameter is first outside its constraint and what was found, if any is."""

    @abstractmethod
    def distribution(self, parameters: Parameters) -> Distribution:
        """The torch distribution with these parameters, without validation."""


def broadcast(*shapes: Size) -> Size:
    """``torch.broadcast_shapes``, which takes longer than the operations it is asked for.

    >>> broadcast(torch.Size([3, 1]), torch.Size([4]))
    torch.Size([3, 4])
    """
    first = shapes[0] if shapes else Size()
    if all(shape == first for shape in shapes):
        return first
    return Size(torch.broadcast_shapes(*shapes))


def sum_event(tensor: Tensor, lead: int) -> Tensor:
    """Sum over all but the ``lead`` leading dims.

    >>> sum_event(torch.ones(2, 3, 4), 1)
    tensor([12., 12.])
    """
    return tensor.flatten(lead).sum(-1) if tensor.dim() > lead else tensor


def violation(name: str, constraint: constraints.Constraint, tensor: Tensor) -> str | None:
    """Say that ``tensor`` is outside ``constraint``, with the first offending entry.

    >>> violation("scale", constraints.positive, torch.tensor([1.0, -1.0]))
    'scale must satisfy GreaterThan(lower_bound=0.0), found -1.0'
    """
    tensor = tensor.detach()
    wrong = torch.isnan(tensor) if constraints.is_dependent(constraint) else ~constraint.check(tensor)
    if not wrong.any():
        return None
    found = tensor[wrong][0].tolist()
    shown = "Real()" if constraints.is_dependent(constraint) else str(constraint)
    return f"{name} must satisfy {shown}, found {found}"


def part(parameters: Parameters, prefix: str) -> dict[str, Tensor]:
    """The parameters of one part: ``base.loc`` becomes ``loc``."""
    start = prefix + "."
    return {name[len(start) :]: tensor for name, tensor in parameters.items() if name.startswith(start)}


def prefixed(parameters: Parameters, prefix: str) -> dict[str, Tensor]:
    """The inverse of ``part``."""
    return {f"{prefix}.{name}": tensor for name, tensor in parameters.items()}


def sum_right(tensor: Tensor, count: int) -> Tensor:
    """Sum the last ``count`` dims."""
    return tensor.sum(tuple(range(-count, 0))) if count else tensor
