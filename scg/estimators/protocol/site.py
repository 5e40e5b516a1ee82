"""Sites: what an estimator sees of its node at run time, and what it can ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.protocol.facts import Axis
from scg.laws import Law, divisor, is_transformed, sum_event

Aux = TypeVar("Aux")
Thing = TypeVar("Thing")
Parameters = dict[str, Tensor]


class Relaxed(NamedTuple):
    """The smooth costs of a node at relaxed points of it, differentiable in the points.

    ``credit`` [n, *lead] is what the node is charged with at each point, in the units of ``Site.credit``.
    ``total`` [n] counts every element of every cost once: it is what path derivatives are taken of.
    """

    credit: Tensor
    total: Tensor


class Terms(NamedTuple):
    """The terms of a bound: a cost is -log mean exp(-values) along ``dim`` of ``values`` [*lead].

    It is in the credit ``scale`` times.
    """

    values: Tensor
    dim: int
    scale: float


class Apart(NamedTuple):
    """The sizes of what is set one by one: plates, 1 where no cost joins their elements, and the event."""

    plates: tuple[int, ...]
    event: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Provided:
    """What an estimator asked for, each under the name that ``Asks`` has for it, or None.

    ``predict`` is there where it learns a network.
    """

    fresh: tuple[Tensor, ...] = ()
    standard: Tensor | None = None
    downstream: Callable[[Tensor], Tensor] | None = None
    relaxed: Callable[[Tensor, Tensor], Relaxed] | None = None
    redrawn: Tensor | None = None
    predict: Callable[..., Tensor] | None = None
    terms: Terms | None = None


@dataclass(frozen=True, eq=False)
class Site:
    """What an estimator sees of a node at run time; it never sees the graph.

    ``law`` is the node's, and ``provided`` what was asked for, which is read by its own name.
    ``axes`` are the leading dimensions of every tensor here: replicates, branches of enumerated nodes
    above, plates. ``credit`` [*lead] is the detached downstream cost that the node is charged with, over its
    own weight. ``wanted`` names the parameters that need an estimate. ``weight`` is the probability of the
    branches it lives in, times the weight of its plates, or None where that is 1; ``unit`` is the
    latter alone. ``parameters`` are detached, in the full shape of the node, and ``noise`` is what the value
    was drawn from. ``share`` is what a step of an ordered plate counts, or None where all count the same.
    ``exists`` [*lead] says which elements do, where some do not: their
    credit is 0, and their parameters and value are those of another. ``ratio`` [*lead] is that of the node's
    law to the one which the value was drawn from, where that was another: estimates count it. ``controls``
    is what ``learns`` returned, ``training`` its mode, and ``trained`` are those of its parameters that
    require a gradient. Where a value, or branches, are about to be made, the parameters are attached, and
    value and credit are empty; ``apart`` is there for branches alone.
    """

    law: Law
    parameters: Parameters
    noise: Tensor
    axes: tuple[Axis, ...]
    provided: Provided
    value: Tensor = field(default_factory=lambda: torch.empty(0))
    credit: Tensor = field(default_factory=lambda: torch.empty(0))
    weight: Tensor | None = None
    unit: Tensor | None = None
    controls: nn.Module | None = None
    training: bool = False
    trained: tuple[nn.Parameter, ...] = ()
    share: Tensor | None = None
    exists: Tensor | None = None
    ratio: Tensor | None = None
    wanted: frozenset[str] = frozenset()
    apart: Apart | None = None

    @property
    def lead(self) -> int:
        """The number of leading dimensions."""
        return len(self.axes)

    def dim(self, axis: str) -> int:
        """Return the dimension of an axis, by its name."""
        names = [known.name for known in self.axes]
        if axis not in names:
            raise EstimatorError(f"there is no axis '{axis}' here; there are {', '.join(names) or 'none'}")
        return names.index(axis)

    @property
    def standard(self) -> Tensor:
        """What is added to the location of a relaxable node, in the shape of ``noise``."""
        return _asked(self.provided.standard, "standard=True")

    @property
    def downstream(self) -> Callable[[Tensor], Tensor]:
        """Evaluates the costs below at values [n, ...] of the node, all else redrawn: [n, *lead]."""
        return _asked(self.provided.downstream, "downstream=n")

    @property
    def redrawn(self) -> Tensor:
        """The credit at the value that the node has, all drawn below drawn anew each time: [n, *lead]."""
        return _asked(self.provided.redrawn, "redraws=n")

    @property
    def terms(self) -> Terms:
        """The terms of the bound that the node is charged with."""
        return _asked(self.provided.terms, "terms=True")

    @property
    def predict(self) -> Callable[..., Tensor]:
        """Calls the network that is learned: at points [n, ...] if it reads them, else at its context."""
        return _asked(self.provided.predict, "points=True or context=..., with a network in learns()")

    def distribution(self, parameters: Parameters) -> torch.distributions.Distribution:
        """Return the node's distribution with other parameters in place of its own."""
        return self.law.distribution(parameters)

    def log_prob(self, parameters: Parameters, value: Tensor) -> Tensor:
        """Return log p(value) [*lead], summed over the event."""
        return self.law.log_prob_over(parameters, value, self.lead)

    def score(self, value: Tensor, weight: Tensor, plus: Parameters | None = None) -> Parameters:
        """Return weight * dlog p(value) / d(parameter) + plus for each parameter, element by element."""
        value = value.detach()
        unit = self.law.score(self.parameters, value)
        if unit is None:
            unit, _ = derivative(
                lambda leaves: (self.log_prob(leaves, value).sum(), ()), self.parameters, attached=False
            )
        if plus is None:
            return {name: self.spread(weight, part) * part for name, part in unit.items()}
        return {
            name: torch.addcmul(plus[name], self.spread(weight, part), part) for name, part in unit.items()
        }

    def derivative(self, fn: Callable[[Parameters], tuple[Tensor, Aux]]) -> tuple[Parameters, Aux]:
        """Return d fn / d(parameter) over the share of the node's elements, and what fn gives besides.

        ``fn`` takes the parameters and returns a scalar and anything else; both stay attached to the
        controls while these learn.
        """
        gradients, besides = derivative(fn, self.parameters, attached=len(self.trained) > 0)
        return self.shared(gradients), besides

    def shared(self, gradients: Parameters) -> Parameters:
        """Divide ``gradients`` of a total by the share of the node's elements."""
        if self.share is None:
            return gradients
        share = divisor(self.share)
        return {name: part / self.spread(share, part) for name, part in gradients.items()}

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over elements, [n, *lead] -> [n], each by its share."""
        return sum_event(values if self.share is None else values * self.share, 1)

    def fresh_noise(self, index: int = 0) -> Tensor:
        """Return noise that nothing else was drawn from, of the kind at ``index`` in ``Asks.fresh``."""
        several = self.provided.fresh
        return _asked(several[index] if index < len(several) else None, f"fresh=({index + 1} kinds)")

    def relaxed(self, points: Tensor, temperature: float | Tensor = 0.5) -> Tensor:
        """Return the smooth costs charged to the node at relaxed points, [n, *lead, *event] -> [n, *lead].

        Discrete nodes below are relaxed at the ``temperature``.
        """
        return self.relaxation(points, temperature).credit

    def relaxation(self, points: Tensor, temperature: float | Tensor = 0.5) -> Relaxed:
        """Return the smooth costs below the node at relaxed points, in one batched evaluation.

        Discrete nodes below are relaxed at the temperature, with the noise of the sample.
        """
        evaluate = _asked(self.provided.relaxed, "relaxed=n")
        return evaluate(points, torch.as_tensor(temperature, dtype=self.credit.dtype))

    def spread(self, value: Tensor, like: Tensor) -> Tensor:
        """Give a tensor [*lead] size-1 dimensions for the event of another, which it is ``like``."""
        return value[(..., *(None,) * (like.dim() - self.lead))] if value.dim() else value


def derivative(
    fn: Callable[[Parameters], tuple[Tensor, Aux]],
    at: Parameters,
    *,
    attached: bool,
    weights: Tensor | None = None,
) -> tuple[Parameters, Aux]:
    """Return the derivative of what ``fn`` gives first in every floating point entry, and the rest.

    That is a scalar, or a vector of which the sum with ``weights`` is meant. Both stay attached to what
    ``fn`` reads besides if ``attached``.
    """
    floats = {name: leaf.detach() for name, leaf in at.items() if leaf.is_floating_point()}
    if is_transformed():

        def summed(leaves: Parameters) -> tuple[Tensor, Aux]:
            value, besides = fn({**at, **leaves})
            return (value if weights is None else (value * weights).sum()), besides

        return torch.func.grad(summed, has_aux=True)(floats)  # type: ignore[no-any-return]
    with torch.enable_grad():
        leaves = {name: leaf.requires_grad_() for name, leaf in floats.items()}
        value, besides = fn({**at, **leaves})
        if not value.requires_grad:
            return {name: torch.zeros_like(leaf) for name, leaf in floats.items()}, besides
        found = torch.autograd.grad(
            value, list(leaves.values()), weights, create_graph=attached, materialize_grads=True
        )
    return dict(zip(floats, found, strict=True)), besides


def left_out(values: Tensor, dim: int = 0, *, pairs: bool = False) -> Tensor:
    """Return, for each element along an axis, the mean over the others: no sample is its own baseline.

    Of antithetic ``pairs``, whose partners are half of the axis away, both are left out. What has no others
    has the baseline 0.
    """
    count = values.shape[dim]
    rest = values.sum(dim, keepdim=True) - values
    if pairs:
        return (rest - values.roll(count // 2, dim)) / max(count - 2, 1)
    return rest / max(count - 1, 1)


def _asked(found: Thing | None, what: str) -> Thing:
    """Return what was asked for."""
    if found is None:
        raise EstimatorError(
            f"the estimator reads from its site what it did not ask for: let asks() return Asks({what})"
        )
    return found
