"""Joint probes: is autograd's gradient right in many tensors at once, given or captured by a function?"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from scg.probes.bounded import MANY
from scg.probes.replay import Replay, undisturbed
from scg.probes.slopes import compared
from scg.probes.smoothness import Smoothness, probe

POINTS: Final = ((1.0, 0.0), (1.0, 0.3), (1.0, 1.0))
"""Where gradients are compared: so much of the point itself, and so much of a random one."""
MIRRORED: Final = ((1.0, -0.3), (1.0, -1.0), (0.0, 1.0), (0.0, -1.0))
SEED: Final = 0x10_1D


class Answer(enum.Enum):
    """Whether something was seen, was looked for and not seen, or could not be looked for."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Judgement:
    """Whether autograd disagrees with finite differences, and whether the function jumps."""

    disagrees: Answer
    jumps: Answer


UNJUDGED: Final = Judgement(Answer.UNKNOWN, Answer.UNKNOWN)


@dataclass(frozen=True)
class Joint:
    """A function of given tensors, and of those that it captures, as one of a single vector.

    ``call`` takes the given tensors by name; ``moved`` names those that are probed, besides ``captured``.
    """

    call: Callable[[dict[str, Tensor]], Any]
    point: Mapping[str, Tensor]
    moved: Sequence[str]
    captured: Sequence[Tensor] = ()
    modules: Iterable[nn.Module] = ()

    def judge(self, *, steps: bool, mirrored: bool = False) -> Judgement:
        """Compare gradients at a few points and, with ``steps`` and if they agree, look for jumps.

        What is defined on one side of a point, or of 0, may not be on the other: ``mirrored`` tries both.
        """
        rest = {name: t for name, t in self.point.items() if name not in set(self.moved)}
        scales = [1.0] * len(self.moved) + [_scale(tensor) for tensor in self.captured]
        tensors = [*(self.point[name] for name in self.moved), *self.captured]
        vector = torch.cat(
            [tensor.detach().reshape(-1) / scale for tensor, scale in zip(tensors, scales, strict=True)]
        )

        def call(at: dict[str, Tensor]) -> Any:
            parts = at["all"].split([tensor.numel() for tensor in tensors])
            full = [p.view(t.shape) * s for p, t, s in zip(parts, tensors, scales, strict=True)]
            given = {**at, **dict(zip(self.moved, full, strict=False))}
            captured = dict(zip(map(id, self.captured), full[len(self.moved) :], strict=True))
            with StandIns(captured):
                return self.call(given)

        points = (*POINTS, *(MIRRORED if mirrored else ()))
        return _judged(call, {**rest, "all": vector}, tuple(self.modules), points, steps=steps)


def _judged(
    call: Callable[[dict[str, Tensor]], Any],
    point: dict[str, Tensor],
    modules: tuple[nn.Module, ...],
    points: Sequence[tuple[float, float]],
    *,
    steps: bool,
) -> Judgement:
    with undisturbed(modules, point["all"].device) as buffers:
        plain = {name: tensor.detach().clone() for name, tensor in point.items()}
        replay = Replay(call, plain, "all", SEED, buffers, limit=MANY)
        double = replay.cast(torch.float64)
        if double.glance(double.origin).values is not None:
            replay = double
        disagrees = _disagrees(replay, points)
    if not steps or disagrees is Answer.YES:
        return Judgement(disagrees, Answer.UNKNOWN)
    verdict = probe(call, point, "all", modules=modules).smoothness
    jumps = {Smoothness.BROKEN: Answer.YES, Smoothness.SMOOTH: Answer.NO, Smoothness.UNKNOWN: Answer.UNKNOWN}
    return Judgement(disagrees, jumps[verdict])


def _disagrees(replay: Replay, points: Sequence[tuple[float, float]]) -> Answer:
    generator = torch.Generator().manual_seed(SEED)
    draws = torch.Generator()
    first = replay.glance(replay.origin).values
    eps = torch.finfo(replay.origin.dtype).eps
    outcomes, depends = [], False
    for share, spread in points:
        draws.manual_seed(SEED + round(100 * abs(spread)))
        noise = torch.randn(replay.origin.shape, generator=draws, dtype=torch.float64)
        point = share * replay.origin + spread * noise.to(replay.origin)
        found = compared(replay, point, eps, generator)
        if found is not None and found.fault:
            return Answer.YES
        values = replay.glance(point).values
        depends |= first is not None and values is not None and not torch.equal(first, values)
        outcomes.append(found is not None)
    return Answer.NO if depends and any(outcomes) else Answer.UNKNOWN


def _scale(tensor: Tensor) -> float:
    """Return the size of a parameter's elements, so that a unit step is a step for it."""
    size = float(tensor.detach().double().square().mean().sqrt())
    return size if size > 0 and math.isfinite(size) else 1 / math.sqrt(max(tensor.shape[-1:], default=1))


class StandIns(TorchFunctionMode):
    """Puts other tensors in the place of those with the given ids, wherever torch is given them.

    In the place of a Gamma draw, whose gradient is right though it is not the slope under fixed noise, it
    puts one of which both agree.
    """

    def __init__(self, by_id: Mapping[int, Tensor]) -> None:
        """Know what stands for what."""
        super().__init__()
        self._by_id = by_id

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function on the stand-ins."""
        if self._by_id:
            args, kwargs = pytree.tree_map_only(Tensor, self._stand_in, (args, kwargs or {}))
        if func is torch._standard_gamma:
            return args[0] * torch.randn_like(args[0].detach()).mul(0.3).exp()
        return func(*args, **(kwargs or {}))

    def _stand_in(self, tensor: Tensor) -> Tensor:
        return self._by_id.get(id(tensor), tensor)
