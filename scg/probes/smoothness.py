"""The smoothness probe: is a function continuous in one of its tensors, and is autograd's gradient right?"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from scg.probes.lines import (
    Gap,
    Line,
    Sample,
    Site,
    gaps,
    jump_in,
    lines,
    narrow_to_deviation,
    narrow_to_switch,
    scan,
)
from scg.probes.recording import same
from scg.probes.replay import Observation, Replay, undisturbed
from scg.probes.slopes import disagreement

POINTS = 6  # where gradients are compared, besides the point itself
UNLIKELY = (
    0x5EED_CA5E  # added to seeds, lest a point drawn after torch.manual_seed(seed) be the probe's own noise
)
SWITCHES_EACH = 2  # switches that are looked at for every recorded value
SWITCHES = 32  # and over all of them


class Smoothness(enum.Enum):
    """What a probe can find."""

    SMOOTH = "smooth"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """What was found, and a fragment of a sentence that says why."""

    smoothness: Smoothness
    reason: str


def probe(
    call: Callable[[dict[str, Tensor]], Any],
    point: Mapping[str, Tensor],
    wrt: str,
    *,
    modules: Iterable[nn.Module] = (),
    seed: int = 0,
) -> Verdict:
    """Whether ``call`` is continuous in ``point[wrt]`` with the gradient that autograd gives.

    ``call`` takes tensors by name and returns a tensor, a number or a nested list, tuple or dict of them.
    Kinks, as of ``relu`` or ``max``, are smooth; where it raises or is NaN or infinite, it is not defined.

    >>> probe(lambda v: v["x"].exp(), {"x": torch.zeros(3)}, "x").smoothness
    <Smoothness.SMOOTH: 'smooth'>
    >>> probe(lambda v: (v["x"] > 0).float(), {"x": torch.zeros(3)}, "x").smoothness
    <Smoothness.BROKEN: 'broken'>
    """
    if not point[wrt].is_floating_point():
        raise TypeError(f"{wrt!r} holds {point[wrt].dtype}: only floating-point tensors can be perturbed.")
    seed += UNLIKELY
    with undisturbed(modules, point[wrt].device) as buffers:
        plain = {name: t.detach().clone() for name, t in point.items()}
        replay, first = _in_best_precision(Replay(call, plain, wrt, seed + 1, buffers))
        if not replay.origin.numel():
            return Verdict(Smoothness.SMOOTH, "it has no elements")
        eps = torch.finfo(first.lowest).eps
        return next(verdict for verdict in _findings(replay, first, eps, seed) if verdict is not None)


def _in_best_precision(replay: Replay) -> tuple[Replay, Observation]:
    """The replay in double precision, where the function accepts that."""
    double = replay.cast(torch.float64)
    seen = double.observe(double.origin)
    if seen.values is None and replay.origin.dtype is not torch.float64:
        return replay, replay.observe(replay.origin)
    return double, seen


def _findings(replay: Replay, first: Observation, eps: float, seed: int) -> Iterator[Verdict | None]:
    """What each check says, the cheap ones first; the first verdict counts."""
    again = replay.glance(replay.origin).values
    if first.values is not None and again is not None and not _close(first.values, again, eps):
        yield _unknown("two calls at one point differ, although torch was seeded alike")
    scans: list[list[Sample]] = []
    between: list[list[Gap]] = []
    inside: list[tuple[Line, Sample]] = []
    for line in lines(replay.origin, seed):
        scans.append(scan(replay, line))
        inside += [(line, sample) for sample in scans[-1] if sample.seen.is_inside]
        if len({sample.values.shape for _, sample in inside}) > 1:
            yield _broken("the shape of its output depends on the value")
        between.append(gaps(line, scans[-1]))
        yield _jump(replay, between[-1], eps)
    if not inside:
        yield _unknown(f"defined at no point that was tried ({first.error or 'NaN or infinite'})")
    yield _wrong_gradient(replay, inside, eps, seed)
    yield _jump_at_switch(replay, between, eps)
    yield _unseen_branch(scans)
    yield Verdict(Smoothness.SMOOTH, "no jump, and autograd agrees with finite differences")


def _close(one: Tensor, other: Tensor, eps: float) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=eps**0.5, atol=eps, equal_nan=True)


def _wrong_gradient(
    replay: Replay, inside: list[tuple[Line, Sample]], eps: float, seed: int
) -> Verdict | None:
    generator = torch.Generator().manual_seed(seed + 2)
    chosen = torch.randperm(len(inside), generator=generator)[:POINTS].tolist()
    points = [replay.origin, *(line.point(s.at) for line, s in (inside[i] for i in chosen))]
    outcomes = [disagreement(replay, p, eps, generator) for p in points]
    if wrong := [outcome for outcome in outcomes if outcome]:
        return _broken(wrong[0])
    if all(outcome is None for outcome in outcomes):
        return _unknown("its gradient is finite at no point that was tried")
    return None


def _jump(replay: Replay, row: list[Gap], eps: float) -> Verdict | None:
    for gap, output in _suspects(row):
        bracket = narrow_to_deviation(replay, gap, output, eps)
        if bracket and (jump := jump_in(replay, bracket, eps)):
            return _broken(jump.describe())
    return None


def _jump_at_switch(replay: Replay, between: list[list[Gap]], eps: float) -> Verdict | None:
    """Compare the outputs on both sides of a few switches of every recorded value."""
    looked: Counter[Site] = Counter()
    for gap, site in _switches(between):
        if looked[site] >= SWITCHES_EACH:
            continue
        bracket = narrow_to_switch(replay, gap, site, eps)
        if bracket and (jump := jump_in(replay, bracket, eps)):
            return _broken(f"{jump.describe()}, where {site[0]} switches")
        looked.update({site, *bracket.switches()} if bracket else {site})
    return None


def _suspects(row: list[Gap]) -> Iterator[tuple[Gap, int]]:
    """The largest deviation of a line, absolutely and against what is usual for its output."""
    if not row or not row[0].excess.numel():
        return
    excess = torch.stack([gap.excess for gap in row])
    relative = excess / (excess.mean(0) + torch.finfo(excess.dtype).tiny)
    for place in {int(excess.argmax()), int(relative.argmax())}:
        yield row[place // excess.shape[1]], place % excess.shape[1]


def _switches(between: list[list[Gap]]) -> list[tuple[Gap, Site]]:
    """For every recorded value the gap where it switches and the outputs deviate most, then the next ones."""
    found: dict[Site, list[Gap]] = {}
    for gap in sorted(chain.from_iterable(between), key=lambda gap: -gap.deviation):
        for site in gap.bracket.switches():
            found.setdefault(site, []).append(gap)
    ranked = zip_longest(*([(gap, site) for gap in places[:SWITCHES_EACH]] for site, places in found.items()))
    return [pair for row in ranked for pair in row if pair is not None][:SWITCHES]


def _unseen_branch(scans: list[list[Sample]]) -> Verdict | None:
    """A recorded value that was the same at every sample that has it."""
    samples = [s.seen for s in chain.from_iterable(scans)]
    sites = dict.fromkeys(site for seen in samples if seen.is_inside for site in seen.reads)
    for site in reversed(sites):  # the last one is nearest to the branch
        first, *others = [seen.reads[site] for seen in samples if site in seen.reads]
        if all(same(first, other) for other in others):
            return _unknown(f"a branch on its value ({site[0]}) was seen but never switched")
    return None


def _unknown(reason: str) -> Verdict:
    return Verdict(Smoothness.UNKNOWN, reason)


def _broken(reason: str) -> Verdict:
    return Verdict(Smoothness.BROKEN, reason)
