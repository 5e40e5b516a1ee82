"""A law whose last batch dims are event dims."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Size, Tensor
from torch import distributions as td

from scg.laws.law import Law, Noise, Parameters, Pathwise, Reach, sum_right


@dataclass(frozen=True)
class Independent(Law):
    """A base law whose last ``rank`` batch dims are event dims; the parameters keep their names."""

    base: Law
    rank: int

    @property
    def family(self) -> str:
        """``Independent(...)``."""
        return f"Independent({self.base.family})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Those of the base."""
        return self.base.parameters

    @property
    def noise(self) -> Noise:
        """That of the base."""
        return self.base.noise

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
        """As the base, but for one that recovers what is added to a location."""
        return self.base.recovers and (self.noise == "value" or not self.discrete)

    @property
    def value_rank(self) -> int:
        """That of the base and ``rank``."""
        return self.base.value_rank + self.rank

    def reach(self, parameters: Parameters | None = None) -> Reach:
        """As the base."""
        return self.base.reach(parameters)

    def movers(self, parameters: Parameters) -> tuple[str, ...]:
        """As the base."""
        return self.base.movers(parameters)

    def event_rank(self, name: str) -> int:
        """That of the base and ``rank``."""
        return self.base.event_rank(name) + self.rank

    def _batch_with_event(self, parameters: Parameters, batch: Size) -> Size:
        inner = self.base.batch_shape(parameters)
        return batch + inner[len(inner) - self.rank :]

    def noise_shape(self, parameters: Parameters, batch: Size) -> Size:
        """The base's, with the joined dims in its batch."""
        return self.base.noise_shape(parameters, self._batch_with_event(parameters, batch))

    def draw(self, parameters: Parameters, noise: Tensor) -> Tensor:
        """The base's draw."""
        return self.base.draw(parameters, noise)

    def recovered(self, parameters: Parameters, value: Tensor, fresh: Tensor) -> Tensor:
        """The base's."""
        owner = self.base.recovered if self.recovers else super().recovered
        return owner(parameters, value, fresh)

    def sample(self, parameters: Parameters, batch: Size) -> Tensor:
        """The base's sample."""
        return self.base.sample(parameters, self._batch_with_event(parameters, batch))

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """The base's, summed over the joined dims."""
        return sum_right(self.base.log_prob(parameters, value), self.rank)

    def mode(self, parameters: Parameters) -> Tensor:
        """The base's."""
        return self.base.mode(parameters)

    def violations(self, parameters: Parameters) -> str | None:
        """The base's."""
        return self.base.violations(parameters)

    def distribution(self, parameters: Parameters) -> td.Distribution:
        """``torch.distributions.Independent``."""
        full = self.base.expand(parameters, self.base.batch_shape(parameters))
        return td.Independent(self.base.distribution(full), self.rank, validate_args=False)
