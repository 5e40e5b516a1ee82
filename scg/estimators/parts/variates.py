"""Control variates: what REBAR, RELAX and LAX have in common, and the network that they learn by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from scg.errors import EstimatorError
from scg.estimators.parts.baselines import Baseline, Zero, besides
from scg.estimators.protocol.asks import Asks
from scg.estimators.protocol.facts import REPLICATES, NodeFacts, Refusal
from scg.estimators.protocol.site import Site, derivative
from scg.laws import Relaxable

NARROW, WIDE = 10, 200


class Remainder:
    """What REBAR, RELAX and LAX have in common besides the variate.

    There is a ``baseline`` of what that leaves, and it may learn from a share of a plate, ``train_on``.
    """

    baseline: Any
    train_on: float

    @property
    def kept(self) -> Baseline:
        """The baseline that the option stands for."""
        found: Baseline = self.baseline
        return found

    def check_options(self) -> None:
        """Refuse baselines that would learn, and what is no share."""
        object.__setattr__(self, "baseline", besides(self.baseline))
        if not isinstance(self.train_on, (int, float)) or not 0 < self.train_on <= 1:
            raise EstimatorError(
                f"train_on is a share of a plate, above 0 and at most 1, not {self.train_on!r}"
            )

    def cannot_train(self, facts: NodeFacts, *, relaxed: bool) -> Refusal | None:
        """Refuse to train on a share of a plate whose elements cannot be evaluated without the rest."""
        if self.train_on == 1:
            return None
        asks, found = self.kept.asks(), facts.alone(relaxed)
        if isinstance(found, Refusal):
            return Refusal(f"train_on={self.train_on:g}: {found}", "leave train_on out")
        if asks.downstream or asks.independent not in (None, REPLICATES):
            return Refusal(
                f"train_on={self.train_on:g} evaluates a share of plate '{found}' alone, and the baseline "
                "reads more",
                "leave one of them out",
            )
        return None

    def asks_of(self, facts: NodeFacts, *, relaxed: bool) -> Asks:
        """Return what the baseline asks for, and on what the control variate trains."""
        if self.train_on == 1:
            return self.kept.asks()
        found = facts.alone(relaxed)
        share = Fraction(self.train_on).limit_denominator(1000)
        return replace(self.kept.asks(), block=found if isinstance(found, str) else None, train_on=share)


class Variate(NamedTuple):
    """A control variate at the points z and z~.

    ``credit`` [2, *lead] is what is subtracted from the credit of each element; ``total`` [2] is what the
    path derivatives are taken of.
    """

    credit: Tensor
    total: Tensor


def conditioned(
    site: Site, variate: Callable[[Tensor], Variate], *, baseline: Baseline, scale: Tensor | None = None
) -> dict[str, Tensor]:
    """Return (Q - c(z~)) dlog p(b) + dc(z) - dc(z~), z~ from p(z | b), c being ``scale`` times a variate.

    The points are stacked, so that the variate is evaluated once.
    """
    points, back = relaxable(site).points(site.parameters, site.standard, site.value, site.fresh_noise())

    def both(leaves: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        credit, total = variate(leaves["points"])
        return total, credit[1]

    slopes, credit = derivative(
        both, {"points": points}, attached=len(site.trained) > 0, weights=signs(points)
    )
    path = site.shared(back(slopes["points"]))
    residual = site.credit - (credit if scale is None else scale * credit)
    if scale is not None:
        path = {name: site.spread(scale, part) * part for name, part in path.items()}
    return site.score(site.value, centred(site, residual, baseline), path)


def signs(points: Tensor) -> Tensor:
    """Return [1, -1]: the path derivative at z counts, that at z~ is taken away."""
    return torch.linspace(1, -1, 2, dtype=points.dtype, device=points.device)


def centred(site: Site, residual: Tensor, baseline: Baseline) -> Tensor:
    """Subtract a baseline of what the control variate leaves, where there is one."""
    return residual if isinstance(baseline, Zero) else residual - baseline.value(site, residual)


def relaxed_costs(site: Site, points: Tensor, temperature: Tensor) -> Variate:
    """Return the smooth costs at perturbed points relaxed at a temperature."""
    law = relaxable(site)
    inner = points.dim() - 1 - site.lead - law.soft.value_rank
    heat = temperature[(..., *(None,) * inner)] if temperature.dim() else temperature
    soft = law.relax(points, heat)
    if site.value.is_floating_point():
        soft = soft.to(site.value.dtype)
    return Variate(*site.relaxation(soft, temperature))


def relaxable(site: Site) -> Relaxable:
    """Return the law of a site whose node is discrete."""
    assert isinstance(site.law, Relaxable)
    return site.law


class Positive(nn.Module):
    """A positive number, or one for each plate element: the exponential of a parameter."""

    log: Tensor

    def __init__(self, start: float | Tensor, dtype: torch.dtype, *, is_learned: bool) -> None:
        """Start from a positive value, and keep it unless it is learned."""
        super().__init__()
        value = torch.as_tensor(start, dtype=dtype).log()
        if is_learned:
            self.log = nn.Parameter(value)
        else:
            self.register_buffer("log", value)

    @property
    def value(self) -> Tensor:
        """The number."""
        return self.log.exp()


class Network(nn.Module):
    """A network of a node's value and of context with one hidden layer, times a scale that starts at 0.

    What the layer makes of context is added to what it makes of the value, so that it is computed once for
    all values. ``squash`` maps values of the node to something bounded, or is None.
    """

    def __init__(
        self, shapes: list[tuple[int, ...]], squash: Callable[[Tensor], Tensor] | None, dtype: torch.dtype
    ) -> None:
        """Make layers for events of the given shapes, the node's own first."""
        super().__init__()
        self.ranks = [len(shape) for shape in shapes]
        self.squash = squash
        widths = [torch.Size(shape).numel() for shape in shapes]
        hidden = min(max(sum(widths), NARROW), WIDE)
        self.inputs = nn.ModuleList(
            nn.Linear(width, hidden, bias=index == 0, dtype=dtype) for index, width in enumerate(widths)
        )
        self.output = nn.Linear(hidden, 1, dtype=dtype)
        self.scale = nn.Parameter(torch.zeros((), dtype=dtype))

    def forward(self, value: Tensor, *context: Tensor) -> Tensor:
        """Return one number for each leading element."""
        given = (value if self.squash is None else self.squash(value), *context)
        parts = [
            _rows(layer, item.flatten(item.dim() - rank) if rank else item.unsqueeze(-1))
            for layer, item, rank in zip(self.inputs, given, self.ranks, strict=True)
        ]
        return _rows(self.output, torch.tanh(reduce(torch.add, parts))).squeeze(-1) * self.scale


def _rows(layer: nn.Module, item: Tensor) -> Tensor:
    """Apply a layer to a matrix: of more dimensions, torch.compile would compile anew for each size."""
    found: Tensor = layer(item if item.dim() <= 2 else item.flatten(0, -2))
    return found if item.dim() <= 2 else found.unflatten(0, item.shape[:-1])


class Squash:
    """Twice the relaxed value minus one, at temperature one half: tanh(z) for a Bernoulli."""

    def __init__(self, law: Relaxable) -> None:
        """Squash as a law relaxes."""
        self.law = law

    def __call__(self, value: Tensor) -> Tensor:
        """Return numbers between -1 and 1."""
        return 2 * self.law.relax(value, 0.5) - 1


def network(facts: NodeFacts, event: tuple[int, ...] | None, context: tuple[str, ...]) -> Network:
    """Return a new network of values of shape ``event``, or of none, and of the nodes that it reads."""
    names = context or tuple(name for name in facts.parents if facts.shape(name) is not None)
    shapes = [facts.shape(name) for name in names]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        raise EstimatorError(f"the network of '{facts.name}' reads {names}, not all of them floating point")
    if event is None:
        return Network(known, None, facts.dtype)
    squash = Squash(facts.law) if isinstance(facts.law, Relaxable) else None
    return Network([event, *known], squash, facts.dtype)


class Controls(nn.Module):
    """What a control variate learns: the temperature and the scale of the relaxed cost, and a network."""

    def __init__(
        self, temperature: Positive | None = None, eta: Positive | None = None, net: Any = None
    ) -> None:
        """Hold what is given."""
        super().__init__()
        self.temperature = temperature
        self.eta = eta
        self.net = net


def first_rough(facts: NodeFacts) -> str:
    """Return what stops the first cost that is not smooth at relaxed values."""
    return next(iter(facts.slice().obstacles.values()), "it reaches no cost")
