"""Trials: runs of a program, and how far the gradient that each leaves is from a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scg.analysis.facts import gather
from scg.choosing.describe import node_facts
from scg.choosing.parts import Parts
from scg.errors import GraphError, ScgError
from scg.estimators.protocol.border import refusal
from scg.estimators.protocol.kinds import Estimator
from scg.estimators.score import Score
from scg.nodes.ir import IR
from scg.oracle.exact import gradient_of
from scg.program.prepare import Prepared
from scg.program.program import Program
from scg.verification.draws import Drawer, drawer
from scg.verification.noises import Tilted, free, rarest
from scg.verification.stream import specs_of, stream

LIMIT = 2**16
"""The most joint outcomes of one cost that are enumerated for a reference."""
POINTS = (24, 40)
"""Two orders of quadrature, which have to agree for either to count as exact."""
HOPELESS = 1e-8
"""Outcomes that are rarer than this are not waited for."""
ROUNDING = 64
"""How many units in the last place of the largest gradient count for nothing."""
CANCELLED = 8
"""The part of the largest of all gradients whose rounding remains where terms cancel, as before BatchNorm."""
PILOT = 1024
"""Runs that tell the direction of a reference that is not exact, and how large gradients are."""


class NoReferenceError(GraphError):
    """There is nothing that a program could be held against."""


@dataclass(frozen=True)
class Rare:
    """The rarest outcome that there is hope to meet: of which node, and how often noise meets it."""

    probability: float = 1.0
    node: str = ""


@dataclass(frozen=True)
class Reference:
    """What the gradient is held against: ``exact`` [entries], or that of ``other`` under the same noise."""

    name: str
    exact: Tensor | None = None
    other: Drawer | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """A program beside its reference.

    ``gradient`` [entries] is that of the reference, of a pilot where it is not exact; ``size`` is that of
    what is rounded in each entry.
    """

    own: Drawer
    reference: Reference
    gradient: Tensor
    size: Tensor
    draw: Callable[[int], Tilted]
    rare: Rare

    @property
    def length(self) -> float:
        """The length of the reference."""
        return float(self.gradient.norm())

    def owner(self, entry: int) -> str:
        """Return the name of the parameter that an entry of the gradient belongs to."""
        for name in self.own.names:
            entry -= self.own.program.get_parameter(name).numel()
            if entry < 0:
                return name
        raise IndexError(f"the gradient has {len(self.gradient)} entries")

    def gaps(self, count: int) -> tuple[Tensor, Tensor]:
        """Return how far runs are from the reference, by entry, and last along it: [count, entries + 1].

        Then how far along ``gradient`` the reference of each run is, over its length: [count, 1].
        """
        gap, value = _gaps(self.own, self.reference, self.draw(count))
        told = self._along(value - gap) if self.reference.exact is None else torch.ones(count, 1)
        return torch.cat([gap, self._along(gap)], 1), told

    def _along(self, rows: Tensor) -> Tensor:
        found = rows @ self.gradient / self.length**2 if self.length else torch.zeros(len(rows))
        return found[:, None]


def trial(program: Program, inputs: Mapping[str, Any], names: Sequence[str], seed: int) -> Trial:
    """Return a program beside the best reference there is, on inputs that it was prepared for."""
    prepared = program._prepared_for(inputs)
    draw = stream(program, prepared, inputs, torch.Generator().manual_seed(seed))
    own = drawer(program, inputs, names, draw(4).noise)
    ir = replace(program._ir, store=program._live_store())
    exact = _exact(ir, inputs, names)
    reference = (
        exact if isinstance(exact, Reference) else _scores(program, prepared, inputs, names, draw, exact)
    )
    several = [_gaps(own, reference, draw(min(own.chunk, PILOT))) for _ in range(-(-PILOT // own.chunk))]
    gaps, values = (torch.cat(parts) for parts in zip(*several, strict=True))
    gradient = (values - gaps).mean(0) if reference.exact is None else reference.exact
    size = values.abs().amax(0).maximum(gradient.abs())
    size = size.maximum(size.max() / CANCELLED)
    eps = torch.finfo(program.get_parameter(names[0]).dtype).eps
    gradient = torch.where(gradient.abs() > ROUNDING * eps * size, gradient, 0.0)
    return Trial(own, reference, gradient, size, draw, _rare(ir, prepared, inputs))


def _gaps(own: Drawer, reference: Reference, drawn: Tilted) -> tuple[Tensor, Tensor]:
    """Return how far runs are from the reference, and what they give, weighed by what noise they have."""
    weights = drawn.weights[:, None].to(own.device)
    found = own(drawn.noise).double()
    against = reference.exact if reference.other is None else reference.other(drawn.noise).double()
    assert against is not None
    return (weights * (found - against)).cpu(), (weights * found).cpu()


def _exact(ir: IR, inputs: Mapping[str, Any], names: Sequence[str]) -> Reference | str:
    """Return the exact gradient, or say why there is none."""
    try:
        coarse, fine = (gradient_of(ir, inputs, points=points, limit=LIMIT) for points in POINTS)
    except ScgError as error:
        return str(error)
    one, other = (torch.cat([found[name].reshape(-1) for name in names]) for found in (coarse, fine))
    eps = torch.finfo(other.dtype).eps
    tolerance = eps**0.5 * float(other.abs().max()) + 64 * eps
    if not torch.allclose(one, other, rtol=0.0, atol=tolerance):
        return "quadrature at two orders does not agree, as where a cost of a Normal has a kink or a step"
    return Reference("the exact gradient", other.double())


def _scores(
    program: Program,
    prepared: Prepared,
    inputs: Mapping[str, Any],
    names: Sequence[str],
    draw: Callable[[int], Tilted],
    why: str,
) -> Reference:
    """Return the score function on the same graph, but for nodes that cannot have it.

    ``why`` tells what stands against an exact gradient.
    """
    policy: dict[str, Estimator | Parts] = {}
    left = []
    for name, choice in prepared.choices.items():
        if refusal(Score(), node_facts(prepared.facts, name, prepared.samples)) is None:
            policy[name] = Score()
        else:
            policy[name] = choice.estimator
            left.append(name)
    reached = prepared.facts.influence.reached
    if all(
        all(isinstance(own, Score) for own in choice.estimators) or not reached[n] or n in left
        for n, choice in prepared.choices.items()
    ):
        raise NoReferenceError(
            "there is nothing to hold this program against: its objective cannot be summed or integrated "
            f"exactly (scg.exact_gradient: {why}), and the score function, which is the reference then, is "
            "what it uses itself. Verify it on a smaller graph of the same kind, or another estimator here"
        )
    plain = Program(
        program._ir, replace(program._options, policy=policy, keep=(), allow_biased=False)
    ).prepare(**inputs)
    told = "the score function on the same graph, which has no exact gradient within reach"
    told += f"; {', '.join(left)} as they are, since their support moves" if left else ""
    return Reference(told, other=drawer(plain, inputs, names, draw(4).noise))


def _rare(ir: IR, prepared: Prepared, inputs: Mapping[str, Any]) -> Rare:
    """Return the rarest outcome that there is hope to meet, as noise is drawn here.

    It is that of these inputs and of parameters as they are now, not of the example.
    """
    specs, found = free(specs_of(prepared, inputs), prepared.randomness.coupling), [Rare()]
    total = max(sum(torch.Size(spec.shape).numel() for spec in specs.values()), 1)
    for world in gather(ir, inputs).worlds:
        for name in ir.samples:
            density = world.densities[name]
            if density.law.finite:
                masses = density.law.mass(dict(density.parameters)).detach().double().flatten()
                masses = masses[(masses > HOPELESS) & (masses < 1)]
                least = float(masses.min()) if len(masses) else 1.0
                found.append(Rare(rarest(least, total) if name in specs else least, name))
    return min(found, key=lambda rare: rare.probability)
