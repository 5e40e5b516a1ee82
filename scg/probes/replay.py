"""A function of one tensor, called again and again under the same randomness, that leaves no trace."""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from scg.probes.bounded import ANY, Bounded
from scg.probes.generators import steady_generators
from scg.probes.recording import Recorder, Replaced


@dataclass(frozen=True)
class Observation:
    """The outputs of one call, flat, in double precision, None where it raised; what was met on the way.

    ``reaches`` tells whether any output was computed from the tensor; the rest is the ``Recorder``'s.
    """

    values: Tensor | None
    reads: dict[tuple[str, int], Any]
    lowest: torch.dtype
    error: str = ""
    reaches: bool = True
    looks: bool = True
    opaque: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    used: frozenset[tuple[str, int]] = frozenset()
    domain: frozenset[tuple[str, int]] = frozenset()
    held: tuple[Tensor, ...] = ()
    steps: tuple[Any, ...] | None = None

    @cached_property
    def is_inside(self) -> bool:
        """Whether the function is defined there: it returned, and not NaN or infinity everywhere."""
        return self.values is not None and (not self.values.numel() or bool(self.values.isfinite().any()))


@dataclass(frozen=True)
class Replay:
    """``call`` as a function of ``point[wrt]`` alone; it may run ``limit`` lines of Python, None for any."""

    call: Callable[[dict[str, Tensor]], Any]
    point: Mapping[str, Tensor]
    wrt: str
    seed: int
    buffers: tuple[tuple[dict[str, Tensor | None], str, Tensor], ...]
    limit: int | None = None

    @property
    def origin(self) -> Tensor:
        """The value around which the function is probed."""
        return self.point[self.wrt]

    def cast(self, dtype: torch.dtype) -> Replay:
        """The same function at floating tensors of another type."""
        point = {name: t.to(dtype) if t.is_floating_point() else t for name, t in self.point.items()}
        return replace(self, point=point)

    def __call__(self, x: Tensor) -> list[Tensor]:
        """The output tensors at x."""
        _reseed(self.seed)
        for owner, name, buffer in self.buffers:
            owner[name] = buffer.clone()
        values = {name: t.clone() for name, t in self.point.items() if name != self.wrt}
        with Bounded(self.limit):
            return list(_leaves(self.call({**values, self.wrt: x})))

    def observe(self, x: Tensor, replaced: Replaced | None = None, *, steps: bool = False) -> Observation:
        """The outputs at x, and what was met on the way; one recorded value may be replaced by another."""
        source = x.clone().requires_grad_().clone()  # not a leaf, so that it may be written to
        recorder = Recorder(source, replaced, steps=steps)
        outputs, values, error = list[Tensor](), None, ""
        try:
            with recorder:
                outputs = self(source)
            recorder.use(outputs)
            for output in outputs:
                recorder.read(output)
            values = _flat(outputs).detach()
        except Exception as raised:  # noqa: BLE001 - a function may refuse a point in any way it likes
            error = _describe(raised)
        return Observation(
            values,
            recorder.reads,
            recorder.lowest,
            error,
            reaches=bool(recorder.opaque or recorder.reads.keys() - recorder.domain)
            or any(map(recorder.follows, outputs)),
            looks=recorder.looks,
            opaque=tuple(recorder.opaque),
            cuts=tuple(recorder.cuts),
            used=frozenset(recorder.used),
            domain=frozenset(recorder.domain),
            held=tuple(recorder.held.values()),
            steps=None if recorder.steps is None else tuple(recorder.steps),
        )

    def glance(self, x: Tensor) -> Observation:
        """The outputs at x alone, which is quicker."""
        try:
            values = _flat(self(x.clone().requires_grad_().clone())).detach()
            return Observation(values, {}, x.dtype)
        except Exception as error:  # noqa: BLE001 - as above
            return Observation(None, {}, x.dtype, _describe(error))

    def gradient(self, x: Tensor, weights: Tensor) -> Tensor:
        """The gradient of the weighted sum of the outputs, by autograd."""
        leaf = x.clone().requires_grad_()
        flat = _flat(self(leaf.clone()))
        if not flat.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad((flat * weights).sum(), leaf, allow_unused=True)
        return torch.zeros_like(x) if gradient is None else gradient

    def bounded(self) -> Replay:
        """The same function, which runs at most ten times as many lines as at its origin, or a few more."""
        with Bounded(ANY) as counted:  # where it ran before
            self.glance(self.origin)
        return replace(self, limit=10 * counted.lines + 200)

    def moved(self, point: Mapping[str, Tensor], seed: int) -> Replay:
        """The same function where its other arguments are those of another point, and buffers are off."""
        origin = self.origin
        values = {
            name: t.detach().to(origin.dtype) if t.is_floating_point() else t.detach()
            for name, t in point.items()
        }
        generator = torch.Generator().manual_seed(seed)
        buffers = tuple((owner, name, _raised(b, generator)) for owner, name, b in self.buffers)
        return replace(self, point=values, buffers=buffers)


def _raised(buffer: Tensor, generator: torch.Generator) -> Tensor:
    """A buffer of real numbers, larger by some: variances and the like stay positive."""
    if not buffer.is_floating_point():
        return buffer
    draw = torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
    return buffer + (0.1 + 0.4 * draw).to(device=buffer.device, dtype=buffer.dtype)


@contextmanager
def undisturbed(modules: Iterable[nn.Module], device: torch.device) -> Iterator[tuple[Any, ...]]:
    """Yield the buffers to renew at every call; at the end all global and module state is as it was."""
    parts = {id(part): part for module in modules for part in module.modules()}.values()
    buffers = tuple((p._buffers, name, b) for p in parts for name, b in p._buffers.items() if b is not None)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(steady_generators([device] if device.type == "cuda" else []))
        stack.callback(Distribution.set_default_validate_args, Distribution._validate_args)
        Distribution.set_default_validate_args(False)
        for part in parts:
            stack.callback(setattr, part, "training", part.training)
        for owner, name, buffer in buffers:
            stack.callback(owner.__setitem__, name, buffer)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield buffers


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _reseed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed % 2**32)


def _leaves(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _leaves(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _leaves(value)
    elif output is not None:
        yield torch.as_tensor(output, dtype=torch.float64 if isinstance(output, float) else None)


def _flat(outputs: list[Tensor]) -> Tensor:
    parts = [torch.view_as_real(t) if t.is_complex() else t for t in outputs]
    return torch.cat([t.reshape(-1).double() for t in parts]) if parts else torch.zeros(0)
