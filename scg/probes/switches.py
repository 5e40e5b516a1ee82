"""Switches: recorded values that change along a line, whether outputs jump there, and whether they matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest

import torch
from torch import Tensor

from scg.probes.lines import Gap, Line, Sample, gaps, jump_in, narrow_to_deviation, narrow_to_switch, scan
from scg.probes.recording import PYTHON, Replaced, Site, same
from scg.probes.replay import Replay

SWITCHES_EACH = 3  # switches that are looked at for every recorded value
SWITCHES = 32  # and over all of them
TRIES = 3  # pairs of samples between which a recorded value is exchanged, at every point


@dataclass(frozen=True)
class Survey:
    """A function along several lines: samples of each line, and the gaps between them."""

    replay: Replay
    lines: tuple[Line, ...]
    scans: tuple[list[Sample], ...]
    between: tuple[list[Gap], ...]

    @property
    def inside(self) -> list[tuple[Line, Sample]]:
        """The samples at which the function is defined."""
        rows = zip(self.lines, self.scans, strict=True)
        return [(line, sample) for line, row in rows for sample in row if sample.seen.is_inside]


def survey(replay: Replay, along: Iterable[Line]) -> Survey:
    """Evaluate a function along lines; where outputs change their shape, there are no gaps."""
    along = tuple(along)
    scans = tuple(scan(replay, line) for line in along)
    shapes = {s.values.shape for s in chain.from_iterable(scans) if s.seen.is_inside}
    between = (
        tuple(gaps(line, row) for line, row in zip(along, scans, strict=True)) if len(shapes) < 2 else ()
    )
    return Survey(replay, along, scans, between)


def jump(seen: Survey, eps: float) -> str | None:
    """Look for a jump where outputs deviate most from a straight line."""
    for row in seen.between:
        for gap, output in _suspects(row):
            bracket = narrow_to_deviation(seen.replay, gap, output, eps)
            if bracket and (found := jump_in(seen.replay, bracket, eps)):
                return found.describe()
    return None


def jump_at_switch(seen: Survey, eps: float) -> str | None:
    """Compare the outputs on both sides of a few switches of every recorded value."""
    looked: Counter[Site] = Counter()
    for gap, site in _switches(seen.between):
        if looked[site] >= SWITCHES_EACH:
            continue
        bracket = narrow_to_switch(seen.replay, gap, site, eps)
        if bracket and (found := jump_in(seen.replay, bracket, eps)):
            return f"{found.describe()}, where {site[0]} switches"
        looked.update({site, *bracket.switches()} if bracket else {site})
    return None


@dataclass
class Watch:
    """What is known of every recorded value so far: whether it ever changed, and whether that mattered.

    Those that tell only where a function is defined may stay as they are.
    """

    first: dict[Site, object] = field(default_factory=dict)
    changed: set[Site] = field(default_factory=set)
    awake: set[Site] = field(default_factory=set)

    def add(self, seen: Survey, eps: float) -> None:
        """Learn from the samples of a survey, exchanging values that were not yet seen to matter."""
        for sample in chain.from_iterable(seen.scans):
            for site, value in sample.seen.reads.items():
                if site not in sample.seen.domain and not same(self.first.setdefault(site, value), value):
                    self.changed.add(site)
        for site in self.changed - self.awake:
            pairs = _pairs(seen, site)
            if pairs is None or any(
                _matters(seen.replay, at, one, site, value, eps) for at, one, value in pairs
            ):
                self.awake.add(site)

    def never_changed(self) -> Site | None:
        """Return the last recorded value that was the same everywhere: it is nearest to a branch."""
        return next((site for site in reversed(self.first) if site not in self.changed), None)

    def asleep(self) -> Site | None:
        """Return a recorded value that changed without any effect."""
        return next((site for site in self.first if site not in self.awake), None)


def _pairs(seen: Survey, site: Site) -> list[tuple[Tensor, Sample, object]] | None:
    """Return points with the value of a site elsewhere; None where values cannot be exchanged."""
    if site == PYTHON:
        return None
    here = [(line.point(s.at), s, s.seen.reads[site]) for line, s in seen.inside if site in s.seen.reads]
    there = [s.seen.reads[site] for s in chain.from_iterable(seen.scans) if site in s.seen.reads]
    found = []
    for at, one, value in here[:: max(1, len(here) // (3 * TRIES))]:
        other = next((v for v in reversed(there) if _alike(v, value) and not same(v, value)), None)
        if other is not None:
            found.append((at, one, other))
    differs = any(not same(value, there[0]) for value in there)
    return None if differs and not found else found[:: max(1, len(found) // TRIES)]


def _alike(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape
    return type(one) is type(other)


def _matters(replay: Replay, at: Tensor, one: Sample, site: Site, value: object, eps: float) -> bool:
    """Say whether the outputs at a point change when one recorded value is taken to be another."""
    is_python = site not in one.seen.used
    after = replay.observe(at, Replaced(site, value), steps=is_python)
    if after.values is None or not close(after.values, one.values, eps):
        return True
    return is_python and after.steps == replay.observe(at, steps=True).steps  # only to warn, say


def close(one: Tensor, other: Tensor, eps: float) -> bool:
    """Say whether outputs are equal up to rounding."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=eps**0.5, atol=eps, equal_nan=True)


def _suspects(row: list[Gap]) -> Iterator[tuple[Gap, int]]:
    """The largest deviation of a line, absolutely and against what is usual for its output."""
    if not row or not row[0].excess.numel():
        return
    excess = torch.stack([gap.excess for gap in row])
    relative = excess / (excess.mean(0) + torch.finfo(excess.dtype).tiny)
    for place in {int(excess.argmax()), int(relative.argmax())}:
        yield row[place // excess.shape[1]], place % excess.shape[1]


def _switches(between: Iterable[list[Gap]]) -> list[tuple[Gap, Site]]:
    """For every recorded value the gap where it switches and the outputs deviate most, then the next ones."""
    found: dict[Site, list[Gap]] = {}
    for gap in sorted(chain.from_iterable(between), key=lambda gap: -gap.deviation):
        for site in gap.bracket.switches():
            found.setdefault(site, []).append(gap)
    ranked = zip_longest(*([(gap, site) for gap in places[:SWITCHES_EACH]] for site, places in found.items()))
    return [pair for row in ranked for pair in row if pair is not None][:SWITCHES]
