"""Verify: draw gradients of a program until it is known whether their mean is that of the objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scg.errors import GraphError, NonFiniteError
from scg.program.program import Program
from scg.progress import Progress
from scg.verification.draws import controls_still
from scg.verification.sequential import GUARD, RARE, Look, Moments, look, p_value, quantile
from scg.verification.trial import ROUNDING, Trial, trial
from scg.verification.verdict import Bias, Interval, Verification, Word

FIRST = 1024
"""Runs before the first look; each look has twice as many."""
WHOLE = {"draws": 2**20, "noise": 0}
"""What whole numbers may look like."""
SURE = 2.0
"""How many standard errors a reference has to be from 0, for a bias to be large or small beside it."""


@dataclass(frozen=True)
class Demand:
    """What a verdict has to satisfy."""

    resolution: float
    alpha: float
    power: float
    draws: int
    noise: int

    def __post_init__(self) -> None:
        """Refuse what is no number, and what no number of runs can satisfy."""
        for name in ("resolution", "alpha", "power"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0.0 < value < 1.0:
                raise GraphError(f"{name}={value!r}: give a number between 0 and 1")
        for name in ("draws", "noise"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise GraphError(f"{name}={value!r}: give a whole number, as {name}={WHOLE[name]}")
        if self.draws < FIRST:
            raise GraphError(f"draws={self.draws} tell too little: give {FIRST} or more")


def verify(
    program: Program,
    *,
    resolution: float = 0.05,
    alpha: float = 0.01,
    power: float = 0.95,
    draws: int = 2**20,
    noise: int = 0,
    progress: bool = False,
    **inputs: Any,
) -> Verification:
    """Test whether the gradient that a program leaves is unbiased, and say what bias would have been seen.

    Gradients of many runs are held against the exact gradient, or where there is none against that of the
    score function on the same graph. A right program is called biased with probability ``alpha`` at most; one
    is called unbiased once a bias along the gradient, of ``resolution`` relative to it, would have been seen
    with probability ``power``. ``draws`` is the most runs, ``noise`` the seed of them all, and ``inputs``
    are those of the program, taken from the examples where they are left out. ``progress`` tells how far it
    is. The program is left as it was.

    >>> import torch, scg
    >>> g = scg.Graph()
    >>> b = g.sample("b", torch.distributions.Bernoulli, logits=g.param("theta", 0.3))
    >>> cost = g.cost("loss", (b - 0.45) ** 2)
    >>> scg.verify(scg.compile(g, "score"), resolution=0.1).verdict
    'unbiased'
    """
    demand = Demand(resolution, alpha, power, draws, noise)
    if not isinstance(program, Program):
        raise GraphError(f"scg.verify takes a program, as scg.compile returns it, not {program!r}")
    if not program._ir.costs:
        raise GraphError("a graph without costs has no gradient to verify: declare g.cost(...)")
    program._ir.drawn_here("scg.verify")
    held = {name: p for name, p in program.named_parameters() if not name.startswith("controls.")}
    trained = {name: p for name, p in held.items() if p.requires_grad}
    if not trained:
        frozen = f" ({', '.join(held)}): call .requires_grad_(True) on one of them" if held else ""
        raise GraphError(f"no parameter of the graph requires a gradient, so there is none to verify{frozen}")
    given = {**program._ir.store.examples, **inputs}
    program.prepare(**given)
    with controls_still(program), torch.enable_grad():
        case = trial(program, {name: given[name] for name in program._ir.inputs}, list(trained), noise)
        found = _judged(case, trained, demand, Progress() if progress else None)
    choices = program._latest().choices
    declared = {
        name: " and ".join(e.name for e in choice.estimators if not e.unbiased)
        for name, choice in choices.items()
        if not all(e.unbiased for e in choice.estimators)
    }
    return replace(found, declared=declared)


def _judged(
    case: Trial, trained: dict[str, torch.nn.Parameter], demand: Demand, progress: Progress | None
) -> Verification:
    """Look at the gaps again and again, each time at twice as many, until they tell."""
    moments, told, looks, target = Moments(len(case.gradient) + 1), Moments(1), 0, FIRST
    rounding = _rounding(case, next(iter(trained.values())).dtype)
    while True:
        for count in _chunks(target - moments.count, case.own.chunk):
            for kept, found in zip((moments, told), case.gaps(count), strict=True):
                kept.add(found)
            if progress is not None:
                progress.tell(f"verify: {moments.count:,} runs of {demand.draws:,} at most")
        if not bool(moments.mean.isfinite().all()):
            entry = int((~moments.mean.isfinite()).nonzero()[0])
            owner = case.owner(min(entry, len(case.gradient) - 1))
            raise NonFiniteError(f"a run left '{owner}' a gradient that is not finite")
        seen = look(moments, rounding, alpha=demand.alpha, looks=looks, rarest=case.rare.probability)
        looks += seen.is_ready
        bias = _along(case, moments, told, seen, demand.power)
        verdict, reason = _verdict(case, moments, seen, bias, demand)
        if verdict != "undecided" or target == demand.draws:
            break
        target = min(2 * target, demand.draws)
    return Verification(
        verdict=verdict,
        p_value=min(seen.every, seen.along),
        scale=_interval(1 + bias.value, bias.error, demand.alpha) if bias.is_known else None,
        parameters=_parameters(case, moments, rounding, trained, demand.alpha),
        detectable=bias.shown,
        draws=moments.count,
        reference=case.reference.name,
        reason=reason,
    )


@dataclass(frozen=True)
class Along:
    """The bias along the reference over its length, its standard error, and what bias would have been seen.

    The latter two are infinite where the reference is 0, or is not told from 0.
    """

    value: float
    error: float
    shown: float

    @property
    def is_known(self) -> bool:
        """Whether there is a length that a bias can be compared with."""
        return math.isfinite(self.error)


def _along(case: Trial, moments: Moments, told: Moments, seen: Look, power: float) -> Along:
    """Return the bias along the reference; ``told`` has the length of that, as far as draws tell it."""
    length = float(told.mean)
    least = length - SURE * float(told.error)
    if not case.length or least <= 0.0:
        return Along(0.0, math.inf, math.inf)
    error = float(moments.error[-1]) / least
    return Along(float(moments.mean[-1]) / length, error, error * (seen.critical + quantile(1 - power)))


def _verdict(case: Trial, moments: Moments, seen: Look, bias: Along, demand: Demand) -> tuple[Word, str]:
    if seen.rejects:
        if seen.along <= seen.every and bias.is_known:
            return "biased", f"along the reference, the mean is {1 + bias.value:.4f} of it"
        return "biased", "an entry of a parameter is off, as the table says"
    if not seen.is_ready:
        return "undecided", _too_few(case, moments)
    if not case.length:
        if float(moments.deviation.max()) == 0.0:
            return "unbiased", "every run leaves a gradient of 0, as the reference is"
        return "undecided", (
            f"the reference is 0 for {', '.join(case.own.names)}, so that no bias is small or large beside "
            "it; the table says what would have been seen. Verify at other parameters or inputs"
        )
    if bias.shown <= demand.resolution:
        return "unbiased", f"a bias of {demand.resolution:.3g} of the gradient would have been seen"
    if not bias.is_known:
        return "undecided", (
            f"the reference for {', '.join(case.own.names)} is not told from 0, so that no bias is small or "
            "large beside it: give more draws, or verify at other parameters or inputs"
        )
    return (
        "undecided",
        f"a bias of less than {bias.shown:.3g} of the gradient would not have been seen: give more draws",
    )


def _too_few(case: Trial, moments: Moments) -> str:
    """Say how many runs are needed before any test is believed, and which gradient or outcome needs them."""
    skews, along = moments.skews[:-1], float(moments.skews[-1])
    heavy, rare = GUARD * moments.skew**2, RARE / case.rare.probability
    if heavy >= rare:
        is_spread = along > 1.01 * float(skews.max())
        what = "along the reference" if is_spread else f"of '{case.owner(int(skews.argmax()))}'"
        told = f"the gradient {what}, which has skewness {moments.skew:.0f}"
    else:
        told = f"outcomes of '{case.rare.node}' that runs meet with probability {case.rare.probability:.2g}"
    needed = math.ceil(max(heavy, rare))
    return f"{moments.count:,} runs are too few for {told}: give draws={needed:,} or more"


def _chunks(count: int, size: int) -> Iterator[int]:
    while count > 0:
        yield min(count, size)
        count -= size


def _rounding(case: Trial, dtype: torch.dtype) -> Tensor:
    """Return what counts as 0 in each mean: what rounding of the largest gradients may add up to."""
    ulp = ROUNDING * torch.finfo(dtype).eps
    along = float((case.gradient.abs() * case.size).sum()) / case.length**2 if case.length else math.inf
    return ulp * torch.cat([case.size, torch.tensor([along], dtype=torch.float64)])


def _interval(value: float, error: float, alpha: float) -> Interval:
    half = quantile(alpha / 2) * error
    return Interval(value, value - half, value + half)


def _parameters(
    case: Trial, moments: Moments, rounding: Tensor, trained: dict[str, torch.nn.Parameter], alpha: float
) -> dict[str, Bias]:
    """Return the entry of every parameter that is furthest off, by its standard error."""
    found, start = {}, 0
    mean, error = moments.mean, moments.error
    over = (mean.abs() - rounding).clamp(min=0.0)
    scores = torch.where(over > 0, over / error, over)
    for name, parameter in trained.items():
        own = slice(start, start + parameter.numel())
        entry = int(scores[own].argmax())
        place = start + entry
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(entry), parameter.shape))
        found[name] = Bias(
            float(case.gradient[own].norm()),
            index,
            _interval(float(mean[place]), float(error[place]), alpha / len(case.gradient)),
            min(1.0, parameter.numel() * p_value(float(scores[place]), moments.count)),
        )
        start += parameter.numel()
    return found
