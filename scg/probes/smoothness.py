"""The smoothness probe: is a function continuous in one of its tensors, and is autograd's gradient right?"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scg.probes.held import SCALES, Moves, holding, moved_parameters, moved_points, parameters_of
from scg.probes.lines import Line, Sample, lines
from scg.probes.replay import Observation, Replay, undisturbed
from scg.probes.slopes import Slope, compared
from scg.probes.switches import Survey, Watch, close, jump, jump_at_switch, survey

POINTS = 6  # where gradients are compared along lines, besides the point itself
NEAR, FAR = (0, 3), (3, 4)  # the lines at further points: through the point unless it is far off, and others
DISTANT = 10.0
UNLIKELY = (
    0x5EED_CA5E  # added to seeds, lest a point drawn after torch.manual_seed(seed) be the probe's own noise
)
Standing = Literal["declared", "structural", "probed"]
Points = Callable[[], Sequence[Mapping[str, Tensor]]]


class Smoothness(enum.Enum):
    """What a probe can find."""

    SMOOTH = "smooth"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """What was found, a fragment of a sentence that says why, and what that rests on.

    It was "declared", or is "structural", read off the operations, whatever the values, or was "probed".
    """

    smoothness: Smoothness
    reason: str
    standing: Standing = "probed"


@dataclass(frozen=True)
class World:
    """A function at one point of all its arguments, with what the tensors that it holds have there."""

    replay: Replay
    moves: Moves = ()


def probe(
    call: Callable[[dict[str, Tensor]], Any],
    point: Mapping[str, Tensor],
    wrt: str,
    *,
    modules: Iterable[nn.Module] = (),
    elsewhere: Points | None = None,
    seed: int = 0,
) -> Verdict:
    """Whether ``call`` is continuous in ``point[wrt]`` with the gradient that autograd gives.

    ``call`` takes tensors by name and returns a tensor, a number or a nested list, tuple or dict of them.
    Kinks, as of ``relu`` or ``max``, are smooth; where it raises or is NaN or infinite, it is not defined.
    What its operations do not show is looked for at ``elsewhere`` too, points at which the other arguments
    are off their values, with parameters off theirs: a factor of 0 would hide a jump.

    >>> probe(lambda v: v["x"].exp(), {"x": torch.zeros(3)}, "x").smoothness
    <Smoothness.SMOOTH: 'smooth'>
    >>> probe(lambda v: (v["x"] > 0).float(), {"x": torch.zeros(3)}, "x").smoothness
    <Smoothness.BROKEN: 'broken'>
    """
    if not point[wrt].is_floating_point():
        raise TypeError(f"{wrt!r} holds {point[wrt].dtype}: only floating-point tensors can be perturbed.")
    seed += UNLIKELY
    modules = tuple(modules)
    with undisturbed(modules, point[wrt].device) as buffers:
        plain = {name: t.detach().clone() for name, t in point.items()}
        replay, first = _in_best_precision(Replay(call, plain, wrt, seed + 1, buffers))
        if not replay.origin.numel():
            return Verdict(Smoothness.SMOOTH, "it has no elements", "structural")
        if first.values is not None and not _repeats(replay, first.values):
            return _unknown("two calls at one point differ, although torch was seeded alike")
        if _is_plain(first) and not first.looks and not first.cuts:
            return _by_slopes([World(replay)], [first], seed)
        if first.looks:
            replay = replay.bounded()
        points = moved_points(plain, wrt, seed + 3) if elsewhere is None else elsewhere()
        held = [*parameters_of(modules), *first.held]
        worlds = [World(replay), *_worlds(replay, points, held, seed + 4)]
        return next(verdict for verdict in _findings(worlds, first, seed) if verdict is not None)


def _repeats(replay: Replay, values: Tensor) -> bool:
    again = replay.glance(replay.origin).values
    return again is None or close(values, again, torch.finfo(replay.origin.dtype).eps)


def _in_best_precision(replay: Replay) -> tuple[Replay, Observation]:
    """The replay in double precision, where the function accepts that."""
    double = replay.cast(torch.float64)
    seen = double.observe(double.origin)
    if seen.values is None and replay.origin.dtype is not torch.float64:
        return replay, replay.observe(replay.origin)
    return double, seen


def _worlds(
    replay: Replay, points: Sequence[Mapping[str, Tensor]], held: list[Tensor], seed: int
) -> Iterator[World]:
    if len(replay.point) == 1 and not held and not replay.buffers:
        return  # it depends on nothing else
    for index, point in enumerate(points):
        scale = SCALES[index % len(SCALES)]
        yield World(replay.moved(point, seed + index), moved_parameters(held, seed, scale))


def _is_plain(seen: Observation) -> bool:
    """Say whether a call ran through, and nothing was met but operations that are known to be smooth."""
    return seen.values is not None and not seen.reads and not seen.opaque


def _findings(worlds: list[World], first: Observation, seed: int) -> Iterator[Verdict | None]:
    """What each check says, the cheap ones first; the first verdict counts."""
    eps = torch.finfo(first.lowest).eps
    seen = [first]
    for world in worlds[1:]:
        with holding(world.moves):
            seen.append(world.replay.observe(world.replay.origin))
    defined = [i for i, one in enumerate(seen) if i == 0 or one.values is not None]
    worlds, seen = [worlds[i] for i in defined], [seen[i] for i in defined]
    if all(map(_is_plain, seen)):
        yield _by_slopes(worlds, seen, seed)
    yield from _by_lines(worlds, first, any(one.opaque for one in seen), eps, seed)


def _by_slopes(worlds: list[World], seen: list[Observation], seed: int) -> Verdict:
    """Judge a function all of whose operations are known: only autograd may have been kept from some."""
    standing: Standing = "probed" if any(one.looks for one in seen) else "structural"
    if not any(s.reaches for s in seen):
        return Verdict(Smoothness.SMOOTH, "its value does not enter what is returned", standing)
    cuts = next((s.cuts[0] for s in seen if s.cuts), None)
    outcomes: list[Slope] = []
    for index, (world, one) in enumerate(zip(worlds, seen, strict=True)):
        generator = torch.Generator().manual_seed(seed + 2)
        origin, eps = world.replay.origin, torch.finfo(one.lowest).eps
        along = _around(world, seed) if index > 0 else lines(origin, seed)[:1] * 2
        away = [line.point(t) for line, t in zip(along, (0.3, -0.7), strict=True)]
        with holding(world.moves):
            found = [compared(world.replay, p, eps, generator) for p in (origin, *away)]
        outcomes += [outcome for outcome in found if outcome is not None]
    if wrong := next((outcome.fault for outcome in outcomes if outcome.fault), None):
        return _broken(wrong)
    if not outcomes:
        return _unknown(f"its gradient is finite at no point that was tried{_why(seen[0])}")
    if cuts is None:
        return Verdict(Smoothness.SMOOTH, "all of its operations are", standing)
    if not any(outcome.is_awake for outcome in outcomes):
        return _unknown(f"its effect was never seen, and there is {cuts} on the way")
    return Verdict(Smoothness.SMOOTH, "autograd agrees with finite differences")


def _why(first: Observation) -> str:
    return f" ({first.error})" if first.error else ""


def _by_lines(
    worlds: list[World], first: Observation, opaque: bool, eps: float, seed: int
) -> Iterator[Verdict | None]:
    """Look for jumps along lines, at every point, and for what could jump but was never seen to matter."""
    watch, inside, changes = Watch(), False, False
    for index, world in enumerate(worlds):
        along = lines(world.replay.origin, seed) if index == 0 else _around(world, seed + index)
        with holding(world.moves):
            seen = survey(world.replay, along)
            if len({sample.values.shape for _, sample in seen.inside}) > 1:
                yield _broken("the shape of its output depends on the value")
            if index == 0 or opaque:
                yield _told(jump(seen, eps))
            if seen.inside:
                yield _wrong_gradient(seen, eps, seed, required=index == 0)
            yield _told(jump_at_switch(seen, eps))
            watch.add(seen, eps)
            inside, changes = inside or bool(seen.inside), changes or _changes(seen.inside)
    if not inside:
        yield _unknown(f"defined at no point that was tried ({first.error or 'NaN or infinite'})")
    if (site := watch.never_changed()) is not None:
        yield _unknown(f"a branch on its value ({site[0]}) was seen but never switched")
    if not changes and first.reaches:
        yield _unknown("its effect on the result was never seen")
    if (site := watch.asleep()) is not None and _could_wake(worlds[0].replay, first):
        yield _unknown(
            f"a step ({site[0]}) was seen but never had an effect, as behind a factor that is always 0"
        )
    yield Verdict(Smoothness.SMOOTH, "no jump, and autograd agrees with finite differences")


def _around(world: World, seed: int) -> list[Line]:
    """Return two lines of a further point: through it, unless that is far off, where functions saturate."""
    along, is_far = lines(world.replay.origin, seed), bool((world.replay.origin.abs() > DISTANT).any())
    return [along[index] for index in (FAR if is_far else NEAR)]


def _told(found: str | None) -> Verdict | None:
    return None if found is None else _broken(found)


def _changes(inside: list[tuple[Line, Sample]]) -> bool:
    """Say whether outputs differ between any two samples."""
    first = inside[0][1].values if inside else None
    return first is not None and any(
        not torch.equal(s.values.nan_to_num(), first.nan_to_num()) for _, s in inside
    )


def _could_wake(replay: Replay, first: Observation) -> bool:
    """Say whether a function has anything besides the one tensor that could be a factor of its steps."""
    others = [t for name, t in replay.point.items() if name != replay.wrt and t.is_floating_point()]
    return bool(others or first.held or replay.buffers or len(replay.point) > 1)


def _wrong_gradient(seen: Survey, eps: float, seed: int, *, required: bool) -> Verdict | None:
    generator = torch.Generator().manual_seed(seed + 2)
    inside = seen.inside
    chosen = torch.randperm(len(inside), generator=generator)[: POINTS if required else 2].tolist()
    points = [seen.replay.origin, *(line.point(s.at) for line, s in (inside[i] for i in chosen))]
    outcomes = [compared(seen.replay, point, eps, generator) for point in points]
    if wrong := [outcome.fault for outcome in outcomes if outcome is not None and outcome.fault]:
        return _broken(wrong[0])
    if required and all(outcome is None for outcome in outcomes):
        return _unknown("its gradient is finite at no point that was tried")
    return None


def _unknown(reason: str) -> Verdict:
    return Verdict(Smoothness.UNKNOWN, reason)


def _broken(reason: str) -> Verdict:
    return Verdict(Smoothness.BROKEN, reason)
