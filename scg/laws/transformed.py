"""The law of the image of a value under invertible transforms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch import distributions as td

from scg.laws.law import Law, Noise, Parameters, Pathwise, Reach, part, sum_right
from scg.laws.numbers import wide
from scg.laws.transforms import Chain, Template
from scg.laws.undoing import is_bijective, undone


@dataclass(frozen=True)
class Transformed(Law):
    """``y = T(x)`` with ``x`` of the base law: parameters ``base.*`` and those of the transforms."""

    base: Law
    transforms: tuple[Template, ...]
    ranks: tuple[int, ...]

    @property
    def family(self) -> str:
        """``Transformed(...)``."""
        return f"Transformed({self.base.family})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """``base.*``, then the tensors of the transforms."""
        own = tuple(name for template in self.transforms for name in template.names())
        return tuple(f"base.{name}" for name in self.base.parameters) + own

    @property
    def noise(self) -> Noise:
        """That of the base; a value is the value after the transforms."""
        return self.base.noise

    @property
    def finite(self) -> bool:
        """A finite base under transforms that hold no tensors and map one event to one event."""
        still = not any(template.names() for template in self.transforms)
        return self.base.finite and still and set(self.ranks) == {0}

    @property
    def discrete(self) -> bool:
        """As the base."""
        return self.base.discrete

    @property
    def pathwise(self) -> Pathwise | None:
        """As the base."""
        return self.base.pathwise

    @property
    def twice(self) -> bool:
        """As the base."""
        return self.base.twice

    @property
    def recovers(self) -> bool:
        """As the base under bijections, but for one that recovers what is added to a location."""
        if self.noise == "value":
            return True
        return self.base.recovers and not self.discrete and all(map(is_bijective, self.transforms))

    @property
    def value_rank(self) -> int:
        """Event dims after the last transform."""
        return self.ranks[-1]

    def reach(self, parameters: Parameters | None = None) -> Reach:
        """The image of the base's reach, where it can be known without parameters."""
        if parameters is None:
            fixed = all(not template.names() for template in self.transforms)
            affine = self.base.reach() == "reals" and fixed
            return Chain(self.transforms).moves("reals", {})[1] if affine else "bounded"
        return Chain(self.transforms).moves(self.base.reach(part(parameters, "base")), parameters)[1]

    def movers(self, parameters: Parameters) -> tuple[str, ...]:
        """Those of the base, then the tensors that move its image."""
        inner = part(parameters, "base")
        own, _ = Chain(self.transforms).moves(self.base.reach(inner), parameters)
        return tuple(f"base.{name}" for name in self.base.movers(inner)) + own

    def event_rank(self, name: str) -> int:
        """The base's, raised by the event dims that the transforms join; a tensor has those of its stage."""
        if name.startswith("base."):
            return self.base.event_rank(name.removeprefix("base."))
        owner = next(i for i, template in enumerate(self.transforms) if name in template.names())
        return self.ranks[owner]

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """The base's; a value law has the shape of its values."""
        if self.noise == "value":
            return batch + self.distribution(parameters).event_shape
        return self.base.noise_shape(part(parameters, "base"), batch)

    def _built(self, parameters: Parameters) -> list[td.Transform]:
        return [template.build(parameters) for template in self.transforms]

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The transforms of the base's draw; for a value, the same derivative at that value."""
        inner = part(parameters, "base")
        if self.noise != "value":
            image = self._forward(parameters, self.base.draw(inner, noise))
            return image if self.pathwise else image.detach()
        if self.pathwise is None:
            return noise
        with torch.no_grad():
            start = self._backward(parameters, noise)
        image = self._forward(parameters, self.base.draw(inner, start))
        return noise + (image - image.detach())

    def _forward(self, parameters: Parameters, value: Tensor) -> Tensor:
        for transform in self._built(parameters):
            value = transform(value)
        return value

    def _backward(self, parameters: Parameters, value: Tensor) -> Tensor:
        for transform in reversed(self._built(parameters)):
            value = transform.inv(value)
        return value

    def recovered(self, parameters: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
        """What the base recovers from the value before the transforms; a value is its own noise."""
        if self.noise == "value" or not self.recovers:
            return super().recovered(parameters, value, fresh)
        before = wide(value)
        for transform in reversed(self._built(parameters)):
            before = undone(transform, before)
        return self.base.recovered(part(parameters, "base"), before, fresh)

    def sample(self, parameters: Parameters, batch: Size) -> Tensor:
        """The transforms of the base's sample."""
        with torch.no_grad():
            return self._forward(parameters, self.base.sample(part(parameters, "base"), batch))

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """Change of variables; atoms keep their mass, so a discrete base has no Jacobian."""
        total: Tensor | float = 0.0
        rank = self.value_rank
        for transform in reversed(self._built(parameters)):
            before = transform.inv(value)
            rank += transform.domain.event_dim - transform.codomain.event_dim
            if not self.discrete:
                total = total - sum_right(
                    transform.log_abs_det_jacobian(before, value), rank - transform.domain.event_dim
                )
            value = before
        log_prob = self.base.log_prob(part(parameters, "base"), value)
        return total + sum_right(log_prob, rank - self.base.value_rank)

    def support(self, parameters: Parameters) -> Tensor:
        """The image of the base's support."""
        return self._forward(parameters, self.base.support(part(parameters, "base")))

    def mass(self, parameters: Parameters) -> Tensor:
        """The mass of the base, in the order of its support."""
        return self.base.mass(part(parameters, "base"))

    def mode(self, parameters: Parameters) -> Tensor:
        """The image of the base's greedy value."""
        with torch.no_grad():
            return self._forward(parameters, self.base.mode(part(parameters, "base")))

    def violations(self, parameters: Parameters) -> str | None:
        """Those of the base, then tensors of the transforms that are NaN."""
        found = self.base.violations(part(parameters, "base"))
        if found is not None:
            return f"base.{found}"
        own = (name for template in self.transforms for name in template.names())
        wrong = next((name for name in own if parameters[name].isnan().any()), None)
        return None if wrong is None else f"{wrong} must satisfy Real(), found nan"

    def distribution(self, parameters: Parameters) -> td.Distribution:
        """``torch.distributions.TransformedDistribution``."""
        base = self.base.distribution(part(parameters, "base"))
        return td.TransformedDistribution(base, self._built(parameters), validate_args=False)
